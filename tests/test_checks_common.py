"""Comparing printed numbers, and choosing the runs that a claim is about."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import RULES, common
from harness.checks.common import agree, claim_unit, counted, distinct, known, unit_of
from harness.facts.submission import Submission
from harness.model import Fact, Missing, Printed, Status, Verdict
from tests import factories
from tests.factories import UNSTATED, at


@pytest.mark.parametrize(
    ("value", "unit"), [(1.0611, 1e-4), (1.06, 1e-2), (3.0, 1.0), (0.00043, 1e-5), (1e-7, 1e-7), (16_000_000, 1.0)]
)
def test_a_number_shows_its_last_digit(value: float, unit: float) -> None:
    assert unit_of(value) == pytest.approx(unit)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (1.1233, 1.12328045, True),  # rounded
        (1.1233, 1.12339, True),  # truncated
        (1.1233, 1.1231, False),
        (1.1233, 1.1235, False),
        (1.12328045, 1.12328045, True),
        (1.12328045, 1.12328061, False),
    ],
)
def test_printed_numbers_agree_within_the_coarser_digits(first: float, second: float, same: bool) -> None:  # noqa: FBT001 - a column of the table
    unit = max(unit_of(first), 1e-8)
    assert agree(first, second, unit) is same
    assert agree(second, first, unit) is same


@given(st.floats(0.5, 3.0), st.integers(1, 8))
def test_rounding_a_number_never_makes_it_disagree(value: float, digits: int) -> None:
    assert agree(round(value, digits), value, 10.0**-digits)


def test_a_claim_without_decimals_does_not_match_everything() -> None:
    assert claim_unit(1.2) == 1e-3
    assert claim_unit(1.2001) == pytest.approx(1e-4)


def test_zeros_at_the_end_count_where_they_were_read() -> None:
    assert [unit_of(each) for each in (1.147, Printed(1.147, 4), Printed(1.147, 5))] == [1e-3, 1e-4, 1e-5]
    assert common.bpb(Printed(1.147, 4)) == "1.1470 BPB"
    assert common.bpb(1.147) == "1.147 BPB"
    for copied in (copy.deepcopy(Printed(1.147, 4)), pickle.loads(pickle.dumps(Printed(1.147, 4)))):  # noqa: S301 - our own bytes
        assert (copied, copied.decimals) == (1.147, 4)


def test_a_copy_of_a_log_counts_once() -> None:
    first = factories.run(1)
    copy = dataclasses.replace(first, location=dataclasses.replace(first.location, path="train.log"))
    assert distinct([first, copy, factories.run(2)]) == (first, factories.run(2))


def test_coarse_scores_never_make_two_runs_one() -> None:
    coarse = at(factories.score(1.2, digits=4), "a.log", 9)
    one, two = (factories.run(1, path=path, headline=coarse) for path in ("a.log", "b.log"))
    assert distinct([one, two]) == (one, two)


def test_claimed_seeds_choose_the_runs() -> None:
    submission = factories.submission(claims=factories.manifest(seeds=(1, 3)))
    assert [known(run.seed) for run in counted(submission).runs] == [1, 3]
    assert counted(submission).basis == "submission.json"


def test_the_readme_chooses_when_the_manifest_names_no_seed() -> None:
    chosen = counted(factories.submission(claims=factories.manifest(seeds=())))
    assert (len(chosen.runs), chosen.basis) == (3, "README")


def test_without_any_claimed_seed_every_log_counts_and_nobody_says_so() -> None:
    silent = dataclasses.replace(factories.submission().readme, seeds=())
    chosen = counted(factories.submission(claims=factories.manifest(seeds=()), readme=silent))
    assert (len(chosen.runs), chosen.basis) == (3, "")


def test_a_claim_that_is_one_logs_score_names_that_log() -> None:
    silent = dataclasses.replace(factories.submission().readme, seeds=())
    claims = factories.manifest(seeds=(), val_bpb=at(1.20600001))
    chosen = counted(factories.submission(claims=claims, readme=silent))
    assert ([known(run.seed) for run in chosen.runs], chosen.basis) == ([2], "the claim")


def test_another_experiment_with_a_claimed_seed_is_not_the_claimed_run() -> None:
    other = factories.run(1, bits=1.3, path="ablation.log")
    chosen = counted(factories.submission(runs=(other, *factories.submission().runs)))
    assert other not in chosen.runs
    assert len(chosen.runs) == 3


def variants(*rows: tuple[int, float], claim: float) -> common.Counted:
    readme = dataclasses.replace(
        factories.submission().readme, seeds=tuple(factories.claim(seed, bits) for seed, bits in rows)
    )
    runs = tuple(factories.run(seed, bits=bits, path=f"log{index}.txt") for index, (seed, bits) in enumerate(rows))
    claims = factories.manifest(seeds=(), val_bpb=at(claim))
    return counted(factories.submission(claims=claims, readme=readme, runs=runs))


def test_a_table_of_variants_counts_for_the_claimed_one() -> None:
    rows = ((1, 1.32000001), (1, 1.25000001), (2, 1.34000001), (2, 1.27000001))
    chosen = variants(*rows, claim=1.26)
    assert ([run.location.path for run in chosen.runs], chosen.basis) == (["log1.txt", "log3.txt"], "README")


def test_a_table_of_variants_that_is_not_claimed_names_no_runs() -> None:
    rows = ((1, 1.32000001), (1, 1.25000001), (2, 1.34000001), (2, 1.27000001))
    assert variants(*rows, claim=1.11).basis == ""
    assert variants((1, 1.32000001), (1, 1.32000001), (2, 1.34000001), claim=1.11).basis == "README"


def test_a_trailing_zero_in_a_table_does_not_widen_it() -> None:
    rows = [factories.claim(1, 1.064), factories.claim(2, 1.06308)]
    assert common.table_unit(rows) == pytest.approx(1e-5)
    near = factories.run(1, bits=1.06443847)
    assert common.claimed_runs(rows[0], [near], common.table_unit(rows)) == []
    assert common.claimed_runs(rows[0], [near], claim_unit(1.064)) == [near]


def test_long_lists_are_cut() -> None:
    assert common.listed([1, 2, 3], limit=2) == "1, 2 and 1 more"
    assert common.listed([]) == ""


def test_missing_facts_give_their_reasons_once() -> None:
    facts: list[Fact[int]] = [UNSTATED, at(1), UNSTATED, Missing("unreadable")]
    assert common.reason_of(facts) == "not stated; unreadable"


def test_every_rule_has_its_own_code_and_name() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES) == len({rule.name for rule in RULES})
    assert all(rule.code[2] == factories.FAMILY_DIGITS[rule.family] for rule in RULES)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.needs == "audit"], ids=lambda rule: rule.name)
def test_an_ordinary_submission_passes_and_an_empty_one_never_passes_by_accident(rule: factories.AnyRule) -> None:
    ordinary = rule.check(factories.submission())
    assert ordinary is not None
    assert ordinary.verdict is Verdict.PASS, ordinary.message
    empty = rule.check(factories.blank())
    if empty is not None and empty.verdict is not Verdict.PASS:
        assert empty.verdict is Verdict.UNDECIDED or rule.status is Status.SETTLED
    if rule.family != "package":
        assert empty is None or empty.verdict is Verdict.UNDECIDED


def test_a_short_print_does_not_stand_beside_its_exact_one() -> None:
    short = factories.score(1.1468, label="final_roundtrip", digits=4)
    exact = factories.score(1.14677405, label="final_roundtrip_exact")
    run = factories.run(1, headline=at(exact), scores=(short, exact))
    assert common.exact_scores(run) == (exact,)
    assert not common.prints(run, 1.1467032, 1e-7)
    assert common.prints(run, 1.1468, 1e-4)
    assert common.exact_scores(factories.run(1, scores=(short,))) == (short,)


def one_seed_in_many_logs(bits: float) -> Submission:
    runs = tuple(factories.run(1, bits=1.2 + index / 10, path=f"log{index}.txt") for index in range(3))
    unvalued = factories.claim(1, val_bpb=UNSTATED)
    claims = dataclasses.replace(factories.manifest(val_bpb=at(bits)), seeds=(unvalued,))
    return factories.submission(claims=claims, runs=runs)


def test_a_claim_of_one_seed_names_its_log_among_those_of_that_seed() -> None:
    chosen = counted(one_seed_in_many_logs(1.3))
    assert [run.location.path for run in chosen.runs] == ["log1.txt"]
    assert chosen.basis == "submission.json"
    assert len(counted(one_seed_in_many_logs(1.35)).runs) == 3


def test_runs_of_one_seed_are_told_apart_by_their_logs() -> None:
    runs = counted(one_seed_in_many_logs(1.35)).runs
    assert common.run_names((*runs[:2], factories.run(2))) == ["log0.txt", "log1.txt", "seed 2"]
