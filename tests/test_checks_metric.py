"""Family metric: the claim, the logs, the README, and the fingerprint of what was counted."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.challenge import VALIDATION_SPLITS
from harness.checks import fingerprint, metric
from harness.facts.claims import DeclaredSplit, ReadmeClaims
from harness.facts.runs import Run
from harness.facts.statements import StatementFacts
from harness.model import Located, Location, Missing, Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, at


def claimed(bits: float, runs: tuple[Run, ...] | None = None, seeds: tuple[int, ...] = (1, 2, 3)) -> Outcome:
    claims = factories.manifest(seeds=seeds, val_bpb=at(bits, pointer="/val_bpb"))
    runs = tuple(factories.run(seed) for seed in (1, 2, 3)) if runs is None else runs
    outcome = metric.claim_not_in_logs.check(factories.submission(claims=claims, runs=runs))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("bits", "what"),
    [(1.203, "the mean of 3 claimed runs"), (1.20300001, "the mean"), (1.20800001, "seed 3"), (1.20800002, "seed 3")],
)
def test_a_claim_may_be_the_mean_or_one_seed(bits: float, what: str) -> None:
    outcome = claimed(bits)
    assert outcome.verdict is Verdict.PASS
    assert what in outcome.message


def test_a_claim_below_every_score_fails() -> None:
    outcome = claimed(1.1234)
    assert outcome.verdict is Verdict.FAIL
    assert outcome.values["difference_bpb"] == pytest.approx(1.1234 - 1.19500001)
    assert [str(place) for place in outcome.locations] == ["submission.json#/val_bpb", "train_seed1.log:90"]


def test_a_claim_above_the_scores_only_warns() -> None:
    assert claimed(1.3456).verdict is Verdict.WARN


def test_a_claim_is_not_a_short_print_that_the_exact_one_contradicts() -> None:
    exact = factories.score(1.14677405, label="final_roundtrip_exact")
    short = factories.score(1.1468, label="final_roundtrip", digits=4)
    run = factories.run(1, headline=at(exact), scores=(short, exact), curve=((100, 1.14),))
    outcome = claimed(1.1467032, (run,), seeds=(1,))
    assert outcome.verdict is Verdict.WARN
    assert "the nearest being 1.14677405 BPB" in outcome.message


def test_a_claim_that_is_a_diagnostic_says_so() -> None:
    diagnostic = factories.score(1.1234, label="pre_quantization", diagnostic=True)
    run = factories.run(1, scores=(factories.score(1.2), diagnostic))
    outcome = claimed(1.1234, (run,), seeds=(1,))
    assert outcome.verdict is Verdict.WARN
    assert "the diagnostic `pre_quantization` of seed 1" in outcome.message


@pytest.mark.parametrize(
    "runs", [(factories.run(1),), (factories.run(1), factories.run(2), factories.run(3, headline=UNSTATED))]
)
def test_absent_or_unread_logs_leave_a_low_claim_undecided(runs: tuple[Run, ...]) -> None:
    assert claimed(1.1234, runs).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(("spoken", "verdict"), [((7,), Verdict.UNDECIDED), ((7, 1), Verdict.FAIL), ((), Verdict.FAIL)])
def test_a_claim_of_a_seed_that_is_only_spoken_of_may_have_no_log(spoken: tuple[int, ...], verdict: Verdict) -> None:
    base = factories.submission(runs=(factories.run(1),))
    claims = factories.manifest(seeds=(), val_bpb=at(1.05, pointer="/val_bpb"))
    said = StatementFacts(seeds=tuple(at(seed, "submission.json") for seed in spoken))
    readme = dataclasses.replace(base.readme, seeds=())
    submission = dataclasses.replace(base, claims=claims, readme=readme, statements=said)
    outcome = metric.claim_not_in_logs.check(submission)
    assert outcome is not None
    assert outcome.verdict is verdict
    assert ("seeds without a log: 7 (submission.json)" in outcome.message) is (verdict is Verdict.UNDECIDED)


def test_no_claim_or_no_score_is_undecided() -> None:
    unlogged = claimed(1.2, ())
    assert unlogged.verdict is Verdict.UNDECIDED
    assert unlogged.message == "The claim of 1.2 BPB cannot be compared with the logs: no training log was read."
    claims = factories.manifest(val_bpb=Missing("submission.json states no val_bpb"))
    outcome = metric.claim_not_in_logs.check(factories.submission(claims=claims))
    assert outcome is not None
    assert "states no val_bpb" in outcome.message


def readme(bits: float | None, seeds: tuple[int, ...] = ()) -> Outcome:
    rows = tuple(factories.claim(seed) for seed in seeds)
    claims = ReadmeClaims(factories.fact(bits, "README.md", 3), UNSTATED, rows)
    outcome = metric.readme_differs_from_claim.check(factories.submission(readme=claims))
    assert outcome is not None
    return outcome


def test_the_readme_repeats_the_claim_in_its_own_digits() -> None:
    assert readme(1.203).verdict is Verdict.PASS
    assert readme(1.2031).verdict is Verdict.PASS  # 1.203 is 1.2031 truncated
    assert readme(1.2051).verdict is Verdict.WARN
    assert readme(None).verdict is Verdict.UNDECIDED


def test_a_claim_in_the_readmes_table_needs_no_headline() -> None:
    assert readme(None, seeds=(1, 2, 3)).verdict is Verdict.PASS
    assert readme(1.1, seeds=(1, 2, 3)).verdict is Verdict.PASS
    assert readme(1.1, seeds=(1, 2)).verdict is Verdict.WARN


def test_a_seed_row_that_is_not_in_its_log_is_named() -> None:
    rows = (factories.claim(1), factories.claim(2, 1.1999))
    claims = factories.manifest_with(factories.manifest(), *rows)
    outcome = metric.seed_claim_not_in_logs.check(factories.submission(claims=claims))
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN
    assert (
        "seed 2 claims 1.1999 BPB at submission.json#/seed_results/2/val_bpb, logged 1.20600001 BPB" in outcome.message
    )


def test_a_log_without_any_score_contradicts_no_seed_row() -> None:
    silent = dataclasses.replace(factories.run(2), headline=UNSTATED, scores=())
    claims = factories.manifest_with(factories.manifest(), factories.claim(1), factories.claim(2, 1.1999))
    made = factories.submission(claims=claims, runs=(factories.run(1), silent))
    outcome = metric.seed_claim_not_in_logs.check(made)
    assert outcome is not None
    assert outcome.verdict is Verdict.PASS


def test_a_claim_in_other_digits_is_told_in_both() -> None:
    assert readme(1.203).message == "The README and submission.json both claim 1.203 BPB."
    finer = readme(1.2034)
    assert finer.verdict is Verdict.PASS
    assert "1.203 BPB" in finer.message
    assert "1.2034 BPB" in finer.message


def test_seed_rows_without_a_log_are_left_to_another_rule() -> None:
    outcome = metric.seed_claim_not_in_logs.check(factories.submission(runs=(factories.run(9),)))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    nothing = factories.submission(
        claims=factories.manifest(seeds=()), readme=dataclasses.replace(factories.submission().readme, seeds=())
    )
    assert metric.seed_claim_not_in_logs.check(nothing) is None


UNCOUNTED = Missing("the log does not print val_tokens")


def scored(loss: float, bits: float, digits: int = 8, **changes: Any) -> Run:
    headline = factories.score(bits, loss, digits=digits, loss_digits=digits)
    return factories.run(1, headline=at(headline, "train_seed1.log", 90), **changes)


def bytes_per_token(*runs: Run, **changes: Any) -> Outcome:
    outcome = fingerprint.unknown_bytes_per_token.check(factories.submission(runs=runs, **changes))
    assert outcome is not None
    return outcome


def test_the_naive_baseline_was_scored_on_the_first_export() -> None:
    # The published final line of the baseline: val_loss:2.07269931 val_bpb:1.22436570.
    outcome = bytes_per_token(scored(2.07269931, 1.22436570))
    assert outcome.verdict is Verdict.PASS
    assert "sp1024 (first export)" in outcome.message


@pytest.mark.parametrize("split", VALIDATION_SPLITS, ids=lambda split: split.name)
@given(loss=st.floats(0.8, 4.0), digits=st.integers(5, 8))
def test_every_split_is_recognised_from_its_own_digits(split: Any, loss: float, digits: int) -> None:
    loss = round(loss, digits)
    for constant in split.bytes_per_token:
        run = scored(loss, round(loss / math.log(2) / constant, digits), digits, val_tokens=UNCOUNTED)
        assert split.name in bytes_per_token(run).message


def test_two_splits_that_both_fit_are_both_named() -> None:
    outcome = bytes_per_token(scored(2.03, 1.20, digits=2, config={}))
    assert outcome.verdict is Verdict.PASS
    assert "sp1024 or sp1024 (first export)" in outcome.message


def test_a_known_miscount_is_named_with_its_source() -> None:
    outcome = bytes_per_token(scored(2.8, 2.8 / math.log(2) / 4.3495, val_tokens=UNCOUNTED))
    assert outcome.verdict is Verdict.WARN
    assert "leading spaces counted twice" in outcome.message


def test_a_number_of_no_split_warns_and_a_missing_one_is_undecided() -> None:
    assert bytes_per_token(scored(2.8, 2.8 / math.log(2) / 5.0, val_tokens=UNCOUNTED)).verdict is Verdict.WARN
    headline = at(factories.score(1.2, val_loss=Missing("the line states no loss")), "a.log", 9)
    outcome = bytes_per_token(factories.run(1, headline=headline))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "the line states no loss" in outcome.message


def test_infinite_and_zero_scores_are_undecided_not_a_crash() -> None:
    for loss, bits in ((math.inf, 1.2), (2.0, 0.0), (math.nan, math.nan)):
        assert bytes_per_token(scored(loss, bits)).verdict is Verdict.UNDECIDED


def test_a_declared_split_is_compared_with_its_declaration_and_noted() -> None:
    split = DeclaredSplit("demo_sp1024", 47_000, 131_600)  # 2.8 bytes per token
    claims = factories.manifest(validation_split=at(split, pointer="/validation_split"))
    right = bytes_per_token(scored(3.3, 3.3 / math.log(2) / 2.8), claims=claims)
    assert right.verdict is Verdict.PASS
    assert "not a challenge split" in right.notes[0]
    wrong = bytes_per_token(scored(3.3, 3.3 / math.log(2) / 2.9), claims=claims)
    assert wrong.verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("tokens", "verdict"),
    [
        (62_021_632, Verdict.PASS),
        (62_021_846, Verdict.PASS),
        (61_997_056, Verdict.PASS),  # whole sequences of 32,768
        (61_800_000, Verdict.WARN),
        (63_779_840, Verdict.WARN),
        (1_000_000, Verdict.FAIL),
        (None, Verdict.UNDECIDED),
    ],
)
def test_validation_tokens(tokens: int | None, verdict: Verdict) -> None:
    run = factories.run(1, val_tokens=factories.fact(tokens, "a.log", 8))
    outcome = fingerprint.validation_tokens_differ.check(factories.submission(runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is verdict


@pytest.mark.parametrize(
    ("non_record", "trial", "verdict"),
    [(True, True, Verdict.WARN), (True, False, Verdict.FAIL), (False, True, Verdict.FAIL)],
)
def test_a_part_of_the_split_warns_where_nothing_is_claimed(*, non_record: bool, trial: bool, verdict: Verdict) -> None:
    run = factories.run(1, val_tokens=factories.fact(32_768, "a.log", 8))
    said = StatementFacts(
        non_record=(at("is_record is false", "submission.json"),) if non_record else (),
        trial=(at("smoke test", "README.md", 3),) if trial else (),
    )
    outcome = fingerprint.validation_tokens_differ.check(factories.submission(runs=(run,), statements=said))
    assert outcome is not None
    assert outcome.verdict is verdict
    assert ("'smoke test' (README.md:3)" in outcome.message) is (verdict is Verdict.WARN)


def test_a_part_of_the_split_warns_where_no_score_is_claimed() -> None:
    run = factories.run(1, val_tokens=factories.fact(32_768, "a.log", 8))
    submission = factories.submission(
        runs=(run,),
        claims=factories.manifest(seeds=(), val_bpb=UNSTATED),
        readme=dataclasses.replace(factories.submission().readme, val_bpb=UNSTATED),
    )
    outcome = fingerprint.validation_tokens_differ.check(submission)
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN
    assert outcome.message.endswith("Neither submission.json nor the README claims a score.")


# Ratio of bytes to tokens, tokens, verdicts on the ratio and on the tokens.
TEXTS = {
    "the whole text": (2.8, 53_957_461, Verdict.PASS, Verdict.PASS),
    "but for a tail": (2.8, 53_940_000, Verdict.PASS, Verdict.PASS),
    "a little less": (2.8, 53_500_000, Verdict.WARN, Verdict.UNDECIDED),
    "a little more": (2.8, 54_300_000, Verdict.WARN, Verdict.UNDECIDED),
    "the first export": (2.8, 55_632_052, Verdict.WARN, Verdict.UNDECIDED),
    "near the first export alone": (2.8, 56_182_800, Verdict.FAIL, Verdict.UNDECIDED),
    "more than there is": (2.8, 57_000_000, Verdict.FAIL, Verdict.UNDECIDED),
    "one process's share": (2.8, 6_744_682, Verdict.WARN, Verdict.UNDECIDED),
    "a sample": (2.8, 131_072, Verdict.WARN, Verdict.FAIL),
}


@pytest.mark.parametrize(("ratio", "tokens", "bytes_verdict", "tokens_verdict"), TEXTS.values(), ids=TEXTS)
def test_an_unknown_tokenizer_is_held_against_the_size_of_the_text(
    ratio: float, tokens: int, bytes_verdict: Verdict, tokens_verdict: Verdict
) -> None:
    run = scored(2.8, 2.8 / math.log(2) / ratio, val_tokens=at(tokens, "a.log", 8))
    counted = fingerprint.validation_tokens_differ.check(factories.submission(runs=(run,)))
    assert counted is not None
    assert (bytes_per_token(run).verdict, counted.verdict) == (bytes_verdict, tokens_verdict)


@pytest.mark.parametrize(("tokens", "verdict"), [(65_536, Verdict.FAIL), (62_021_632, Verdict.UNDECIDED)])
def test_a_sample_is_one_without_a_loss_too(tokens: int, verdict: Verdict) -> None:
    headline = at(factories.score(1.2, val_loss=Missing("the line states no loss")), "a.log", 9)
    run = factories.run(1, headline=headline, val_tokens=at(tokens, "a.log", 8))
    outcome = fingerprint.validation_tokens_differ.check(factories.submission(runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is verdict


def test_one_byte_per_token_needs_another_sign_of_a_byte_alphabet() -> None:
    bare = scored(0.7, 0.7 / math.log(2), config={}, val_tokens=UNCOUNTED)
    assert bytes_per_token(bare).verdict is Verdict.UNDECIDED
    told = scored(0.7, 0.7 / math.log(2), config={"vocab_size": at("260", "a.log", 3)}, val_tokens=UNCOUNTED)
    assert bytes_per_token(told).verdict is Verdict.PASS


def test_tokens_of_an_unknown_split_are_undecided_and_of_a_declared_one_compared() -> None:
    run = scored(2.8, 2.8 / math.log(2) / 5.0)
    unknown = fingerprint.validation_tokens_differ.check(
        factories.submission(runs=(dataclasses.replace(run, val_tokens=at(25_000_000, "a.log", 8)),))
    )
    claims = factories.manifest(validation_split=at(DeclaredSplit("demo", 47_000, 131_600)))
    run = dataclasses.replace(run, val_tokens=at(47_000, "a.log", 8))
    declared = fingerprint.validation_tokens_differ.check(factories.submission(runs=(run,), claims=claims))
    assert unknown is not None
    assert declared is not None
    assert (unknown.verdict, declared.verdict) == (Verdict.UNDECIDED, Verdict.PASS)


@pytest.mark.parametrize(
    ("bits", "named", "verdict"),
    [
        (0.85, (0.85, 0.9), Verdict.UNDECIDED),  # the claim itself
        (0.87, (0.85, 0.9), Verdict.UNDECIDED),  # a mean of such numbers
        (0.80, (0.85, 0.9), Verdict.FAIL),
        (1.3456, (0.85, 0.9), Verdict.WARN),
    ],
)
def test_what_the_log_prints_under_an_unread_name_accuses_nobody(
    bits: float, named: tuple[float, ...], verdict: Verdict
) -> None:
    run = factories.run(1, named_bpb=tuple(at(value, "train_seed1.log", 95) for value in named))
    outcome = claimed(bits, (run,), seeds=(1,))
    assert outcome.verdict is verdict
    assert ("train_seed1.log:95" in map(str, outcome.locations)) is (verdict is Verdict.UNDECIDED)


@pytest.mark.parametrize(("claim", "verdict"), [(1.1467032, Verdict.WARN), (1.1468032, Verdict.PASS)])
def test_a_readme_row_is_the_claim_rounded_or_cut_off(claim: float, verdict: Verdict) -> None:
    rows = tuple(factories.claim(seed, bits) for seed, bits in ((1, 1.1474), (2, 1.1469), (3, 1.1468)))
    readme = ReadmeClaims(val_bpb=at(1.149, "README.md", 3), val_bpb_std=UNSTATED, seeds=rows)
    claims = factories.manifest(val_bpb=at(claim, pointer="/val_bpb"))
    outcome = metric.readme_differs_from_claim.check(factories.submission(claims=claims, readme=readme))
    assert outcome is not None
    assert outcome.verdict is verdict


@pytest.mark.parametrize(
    ("loss", "bits", "verdict"),
    [(2.7872, 1.6507, Verdict.WARN), (3.7872, 1.6507, Verdict.FAIL), (2.8, 1.7, Verdict.FAIL)],
)
def test_a_part_of_the_text_has_other_words(loss: float, bits: float, verdict: Verdict) -> None:
    """Where the log's own validations fit a split, the same tokens are not counted twice too often."""
    place = Location("train_seed1.log", 70)
    check = factories.score(bits, path=place.path, val_loss=Located(loss, place), digits=4, loss_digits=4)
    run = scored(3.68022869, 1.99298916)
    outcome = bytes_per_token(dataclasses.replace(run, validation=Located(check, place)))
    assert outcome.verdict is verdict
    assert ("fit sp1024" in outcome.message) == (verdict is Verdict.WARN)
    assert bytes_per_token(run).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((4.3864, 4.3864, 4.3864), Verdict.WARN),
        ((4.3864,), Verdict.UNDECIDED),
        # One number of another evaluation.
        ((4.3864, 4.3864, 4.1), Verdict.UNDECIDED),
        ((3.72663, 3.72663, 3.72663), Verdict.UNDECIDED),
    ],
)
def test_without_a_log_the_claims_tell_bytes_per_token(ratios: tuple[float, ...], verdict: Verdict) -> None:
    bits = dict(enumerate((1.2123456, 1.2034567, 1.2245678), start=1))
    seeds = tuple(
        factories.claim(seed, bits[seed], val_loss=at(ratio * bits[seed] * math.log(2), pointer=f"/seeds/{seed}"))
        for seed, ratio in enumerate(ratios, start=1)
    )
    claims = factories.manifest(seeds=(), val_loss=UNSTATED)
    outcome = bytes_per_token(claims=dataclasses.replace(claims, seeds=seeds))
    assert outcome.verdict is verdict
    assert ("seed 1, seed 2, seed 3: 4.38640 (as sp8192" in outcome.message) == (verdict is Verdict.WARN)


@pytest.mark.parametrize("changes", [{"digits": 3}, {"same": True}, {"declared": True}, {}])
def test_claims_that_are_rounded_or_one_or_of_their_own_split_say_nothing(changes: dict[str, Any]) -> None:
    bits = {1: 1.2345678, 2: 1.2345678 if "same" in changes else 1.2456789}
    bits = {seed: round(value, changes.get("digits", 7)) for seed, value in bits.items()}
    seeds = tuple(
        factories.claim(seed, bits[seed], val_loss=at(4.3864 * bits[seed] * math.log(2), pointer=f"/seeds/{seed}"))
        for seed in (1, 2)
    )
    claims = dataclasses.replace(factories.manifest(seeds=(), val_loss=UNSTATED), seeds=seeds)
    if "declared" in changes:
        claims = dataclasses.replace(claims, validation_split=at(DeclaredSplit("mine", 10, 44), pointer="/split"))
    outcome = bytes_per_token(claims=claims)
    assert outcome.verdict is (Verdict.UNDECIDED if changes else Verdict.WARN)
