"""Family size: three accountings, and claims that may be any of them."""

from __future__ import annotations

import dataclasses

import pytest

from harness.checks import size as checks
from harness.checks import size_code as code_checks
from harness.facts.size import SeedSize, SizeFacts
from harness.model import Missing, Outcome, Verdict
from tests import factories
from tests.factories import CODE_BYTES, MODEL_BYTES, UNSTATED, at, seed_size

CAP = 16_000_000


def sized(*sizes: SeedSize, entry: int = CODE_BYTES, every: int = CODE_BYTES) -> SizeFacts:
    return SizeFacts(at(entry, "train_gpt.py"), at(every, "train_gpt.py"), ("train_gpt.py",), sizes)


def over_cap(*sizes: SeedSize) -> Outcome:
    outcome = checks.artifact_over_cap.check(factories.submission(size=sized(*sizes)))
    assert outcome is not None
    return outcome


def three(shipped: int | None, compressed: int | None, every: int | None, model: int = MODEL_BYTES) -> SeedSize:
    return seed_size(
        1,
        model,
        shipped_bytes=factories.fact(shipped, "a.log", 1),
        compressed_code_bytes=factories.fact(compressed, "a.log", 2),
        all_helpers_bytes=factories.fact(every, "a.log", 3),
    )


@pytest.mark.parametrize(
    ("shipped", "compressed", "every", "verdict"),
    [
        (CAP, CAP, CAP, Verdict.PASS),
        (CAP + 1, CAP + 1, CAP + 1, Verdict.FAIL),
        (CAP, CAP, CAP + 1, Verdict.WARN),
        (CAP + 1, CAP, CAP + 1, Verdict.WARN),
        (CAP, None, CAP, Verdict.PASS),
        (CAP + 1, None, CAP + 1, Verdict.UNDECIDED),
        (None, None, None, Verdict.UNDECIDED),
    ],
)
def test_the_cap_in_three_accountings(
    shipped: int | None, compressed: int | None, every: int | None, verdict: Verdict
) -> None:
    assert over_cap(three(shipped, compressed, every)).verdict is verdict


@pytest.mark.parametrize(
    ("total", "seed_total", "verdict"),
    [
        (CAP, None, Verdict.UNDECIDED),
        (CAP + CODE_BYTES, None, Verdict.WARN),  # code may be counted compressed
        (CAP + CODE_BYTES + 1, None, Verdict.FAIL),
        (None, CAP + CODE_BYTES + 1, Verdict.FAIL),
        (4 * CAP, None, Verdict.WARN),  # it may be that of a checkpoint
    ],
)
def test_a_stated_total_counts_where_no_log_states_one(
    total: int | None, seed_total: int | None, verdict: Verdict
) -> None:
    row = factories.claim(1, artifact_bytes=factories.fact(seed_total, "submission.json", 9))
    claims = factories.manifest(bytes_total=factories.fact(total, "submission.json", 8), bytes_code=UNSTATED)
    claims = factories.manifest_with(claims, row)
    outcome = checks.artifact_over_cap.check(factories.submission(size=sized(three(None, None, None)), claims=claims))
    assert outcome is not None
    assert outcome.verdict is verdict


@pytest.mark.parametrize(
    ("logged", "entry", "verdict"), [(60_000, 50_000, "fail"), (60_000, 600, "warn"), (0, 600, "undecided")]
)
def test_a_logged_total_counts_where_the_model_is_in_no_log(logged: int, entry: int, verdict: str) -> None:
    run = dataclasses.replace(three(None, None, None), logged_total_bytes=at(CAP + logged, "a.log", 4))
    claims = factories.manifest(seeds=(), bytes_total=UNSTATED, bytes_code=UNSTATED)
    outcome = checks.artifact_over_cap.check(factories.submission(size=sized(run, entry=entry), claims=claims))
    assert outcome is not None
    # What a wrapper of a few lines runs has more code than itself.
    assert outcome.verdict == verdict


@pytest.mark.parametrize(
    ("claimed_bytes", "claimed_bits", "verdict"),
    [
        (15_800_000, 1.15, Verdict.WARN),  # neither is in any log
        (15_800_000, 1.20300001, Verdict.WARN),
        (15_800_000, 1.195, Verdict.FAIL),  # a log prints the score
        (CAP + 1, 1.15, Verdict.FAIL),  # the claim itself is over the cap
    ],
)
def test_a_log_that_may_be_another_run_s_does_not_fail(
    claimed_bytes: int, claimed_bits: float, verdict: Verdict
) -> None:
    claims = factories.manifest(seeds=(), val_bpb=at(claimed_bits), bytes_total=at(claimed_bytes))
    over = sized(three(CAP + 1, CAP + 1, CAP + 1))
    outcome = checks.artifact_over_cap.check(
        factories.submission(size=over, claims=claims, runs=(factories.run(1, 1.19500001),))
    )
    assert outcome is not None
    assert outcome.verdict is verdict


def test_the_disputed_accountings_are_named() -> None:
    outcome = over_cap(three(CAP, CAP, CAP + 7))
    assert "`all code files`" in outcome.message
    assert "16,000,007 bytes" in outcome.message
    assert outcome.values["all_code_files_bytes"] == CAP + 7


def test_a_model_above_the_cap_needs_no_accounting() -> None:
    outcome = over_cap(three(CAP + 60, None, CAP + 60, model=CAP + 1))
    assert outcome.verdict is Verdict.FAIL
    assert "model alone" in outcome.message


def test_one_unread_run_keeps_the_rest_from_passing() -> None:
    outcome = over_cap(seed_size(1), seed_size(2, None))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "1 run without a size" in outcome.message


def test_only_claimed_seeds_are_judged() -> None:
    size = sized(seed_size(1), seed_size(9, CAP))
    outcome = checks.artifact_over_cap.check(factories.submission(size=size, claims=factories.manifest(seeds=(1,))))
    assert outcome is not None
    assert outcome.verdict is Verdict.PASS


def claimed(total: int | None, *sizes: SeedSize) -> Outcome:
    claims = factories.manifest(seeds=(), bytes_total=UNSTATED if total is None else at(total, pointer="/bytes_total"))
    outcome = checks.size_claim_differs.check(factories.submission(size=sized(*sizes), claims=claims))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("total", "which"),
    [(15_050_300, "the largest"), (15_050_000, "the smallest"), (15_050_133, "the mean"), (15_050_100, "one seed's")],
)
def test_a_size_claim_may_be_any_of_several(total: int, which: str) -> None:
    outcome = claimed(total, *(seed_size(seed, MODEL_BYTES + more) for seed, more in ((1, 0), (2, 100), (3, 300))))
    assert outcome.verdict is Verdict.PASS
    assert which in outcome.message


def test_a_rounded_size_claim_is_a_rounded_one() -> None:
    assert claimed(15_100_000, seed_size(1)).verdict is Verdict.PASS
    assert claimed(15_200_000, seed_size(1)).verdict is Verdict.WARN


def test_a_size_claim_off_by_bytes_warns_with_both_places() -> None:
    outcome = claimed(15_050_011, seed_size(1))
    assert outcome.verdict is Verdict.WARN
    assert {str(place) for place in outcome.locations} >= {"submission.json#/bytes_total", "train_seed1.log:87"}


def test_a_claim_of_the_model_alone_is_called_that() -> None:
    sizes = [seed_size(seed, MODEL_BYTES + more) for seed, more in ((1, 0), (2, 100), (3, 302))]
    for total in (15_000_302, 15_000_134):  # the largest, the mean
        outcome = claimed(total, *sizes)
        assert outcome.verdict is Verdict.WARN
        assert "the compressed model alone" in outcome.message


def test_nothing_claimed_or_nothing_logged_is_undecided() -> None:
    assert claimed(None, seed_size(1)).verdict is Verdict.UNDECIDED
    assert claimed(15_050_000).verdict is Verdict.UNDECIDED


def test_a_wrong_per_seed_size_is_named() -> None:
    claims = factories.manifest(seeds=(1,))
    row = factories.claim(1, artifact_bytes=at(14_999_999, pointer="/seed_results/1/artifact_bytes"))
    claims = factories.manifest(seeds=(), bytes_total=claims.bytes_total)
    changed = factories.submission(size=sized(seed_size(1)), claims=factories.manifest_with(claims, row))
    outcome = checks.size_claim_differs.check(changed)
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN
    assert "14,999,999" in outcome.message


def code(logged: int, entry: int, every: int) -> Outcome:
    run = factories.run(1, code_bytes=at(logged, "train_seed1.log", 86))
    outcome = code_checks.code_size_differs.check(
        factories.submission(runs=(run,), size=sized(entry=entry, every=every))
    )
    assert outcome is not None
    return outcome


def test_logged_code_may_be_the_script_or_all_files() -> None:
    assert code(50_000, 50_000, 60_000).verdict is Verdict.PASS
    assert code(60_000, 50_000, 60_000).verdict is Verdict.PASS
    assert code(50_004, 50_000, 60_000).verdict is Verdict.WARN


def test_a_much_smaller_logged_code_is_taken_for_compressed() -> None:
    outcome = code(15_000, 60_000, 60_000)
    assert outcome.verdict is Verdict.PASS
    assert "compressed" in outcome.notes[0]


def test_no_script_means_undecided() -> None:
    size = SizeFacts(Missing("no script"), Missing("no script"), (), ())
    outcome = code_checks.code_size_differs.check(factories.submission(size=size))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((16_500_000, 15_000_000), Verdict.WARN),
        ((16_500_000, 16_400_000), Verdict.FAIL),
        ((16_500_000,), Verdict.FAIL),
    ],
)
def test_another_log_of_the_seed_may_be_the_claimed_one(sizes: tuple[int, ...], verdict: Verdict) -> None:
    assert over_cap(*(factories.seed_size(1, model) for model in sizes)).verdict is verdict


def test_one_log_of_another_code_size_is_not_said_of_all() -> None:
    runs = tuple(
        factories.run(seed, code_bytes=factories.at(factories.CODE_BYTES + (89 if seed == 1 else 0), "train.log", 86))
        for seed in (1, 2, 3)
    )
    outcome = code_checks.code_size_differs.check(factories.submission(runs=runs))
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN
    assert outcome.message.startswith("1 of 3 logs count 50,089 bytes of code")
