"""Family significance: mean and deviation by hand."""

from __future__ import annotations

import dataclasses
import statistics

import pytest

from harness.checks import significance as checks
from harness.model import Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, at


def mean(bits: float) -> Outcome:
    claims = factories.manifest(val_bpb=at(bits, pointer="/val_bpb"))
    outcome = checks.mean_differs.check(factories.submission(claims=claims))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("bits", "verdict", "words"),
    [
        (1.203, Verdict.PASS, "as claimed"),
        (1.2035, Verdict.WARN, "the claim is 1.2035 BPB"),
        (1.20800001, Verdict.WARN, "one seed's value"),
        (1.19500001, Verdict.WARN, "the best seed's value"),
        (1.2345, Verdict.WARN, "the claim is 1.2345 BPB"),
    ],
)
def test_the_mean_of_1_195_and_1_206_and_1_208_is_1_203(bits: float, verdict: Verdict, words: str) -> None:
    outcome = mean(bits)
    assert outcome.verdict is verdict
    assert words in outcome.message
    assert outcome.values["mean_bpb"] == pytest.approx(1.203)


def test_a_single_seed_has_no_mean() -> None:
    single = factories.submission(
        claims=factories.manifest(seeds=()),
        readme=dataclasses.replace(factories.submission().readme, seeds=()),
        runs=(factories.run(1),),
    )
    assert checks.mean_differs.check(single) is None
    outcome = checks.deviation_differs.check(single)
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED


def test_several_logs_of_one_seed_are_runs_and_not_seeds() -> None:
    runs = tuple(factories.run(1, bits=1.2 + index / 10, path=f"log{index}.txt") for index in range(3))
    claims = dataclasses.replace(factories.manifest(val_bpb=at(1.25)), seeds=(factories.claim(1, val_bpb=UNSTATED),))
    silent = dataclasses.replace(factories.submission().readme, seeds=())
    outcome = checks.mean_differs.check(factories.submission(claims=claims, runs=runs, readme=silent))
    assert outcome is not None
    assert outcome.message.startswith("The mean of 3 runs (logs) is 1.3 BPB")


def deviation(claimed: float) -> Outcome:
    claims = factories.manifest(val_bpb_std=at(claimed, pointer="/val_bpb_std"))
    outcome = checks.deviation_differs.check(factories.submission(claims=claims))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("claimed", "verdict", "words"),
    [
        (0.007, Verdict.PASS, "sample (n - 1)"),
        (0.00571548, Verdict.PASS, "population (n)"),  # 0.007 * sqrt(2 / 3)
        (0.0057, Verdict.PASS, "population (n)"),
        (0.0047, Verdict.WARN, "0.007 BPB (n - 1) or 0.00571548 BPB (n)"),
    ],
)
def test_either_deviation_is_accepted_and_named(claimed: float, verdict: Verdict, words: str) -> None:
    outcome = deviation(claimed)
    assert outcome.verdict is verdict
    assert words in outcome.message


def test_the_golden_deviations_of_a_published_row() -> None:
    # Three published seeds of #1855 and the deviation that its table states, 0.0009 (population) and 0.0011 (sample).
    rows = [factories.claim(seed, bits) for seed, bits in ((1, 1.05989454), (2, 1.06124613), (3, 1.06208695))]
    for claimed, name in ((0.0009, "population"), (0.0011, "sample")):
        claims = factories.manifest_with(factories.manifest(val_bpb_std=at(claimed)), *rows)
        outcome = checks.deviation_differs.check(factories.submission(claims=claims))
        assert outcome is not None
        assert outcome.verdict is Verdict.PASS
        assert name in outcome.message


@pytest.mark.parametrize(
    ("claimed", "source"), [(0.007, "submission.json"), (0.07, "README"), (0.3, "submission.json")]
)
def test_a_deviation_of_the_values_in_the_readme_is_one_of_the_seeds(claimed: float, source: str) -> None:
    rows = tuple(factories.claim(seed, bits) for seed, bits in ((1, 1.03), (2, 1.10), (3, 1.17)))
    readme = dataclasses.replace(factories.submission().readme, seeds=rows)
    claims = factories.manifest(val_bpb_std=at(claimed))
    outcome = checks.deviation_differs.check(factories.submission(claims=claims, readme=readme))
    assert outcome is not None
    assert f"({source})" in outcome.message
    assert outcome.verdict is (Verdict.WARN if claimed > 0.1 else Verdict.PASS)


def test_no_claimed_deviation_means_nothing_to_check() -> None:
    assert checks.deviation_differs.check(factories.submission(claims=factories.manifest(val_bpb_std=UNSTATED))) is None


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ((1, 2, 3), Verdict.PASS),
        ((1, 2), Verdict.WARN),
        ((1,), Verdict.WARN),
        ((None, 1, 2), Verdict.UNDECIDED),
    ],
)
def test_three_seeds_are_usual(seeds: tuple[int | None, ...], verdict: Verdict) -> None:
    runs = tuple(factories.run(seed, path=f"log{place}") for place, seed in enumerate(seeds))
    silent = factories.manifest(seeds=())
    readme = dataclasses.replace(factories.submission().readme, seeds=())
    outcome = checks.few_seeds.check(factories.submission(claims=silent, readme=readme, runs=runs))
    assert outcome is not None
    assert outcome.verdict is verdict


def test_non_record_submissions_need_no_three_seeds() -> None:
    claims = factories.manifest(track=at("non-record-16mb"))
    assert checks.few_seeds.check(factories.submission(claims=claims)) is None


def test_the_last_bits_of_a_mean_are_no_difference() -> None:
    bits = {1: 1.0865119312345678, 2: 1.0871234512345679, 3: 1.0859876512345677}
    runs = tuple(factories.run(seed, value) for seed, value in bits.items())
    for claimed, verdict in ((statistics.fmean(bits.values()) + 1e-15, Verdict.PASS), (1.0875, Verdict.WARN)):
        claims = dataclasses.replace(
            factories.manifest(val_bpb=at(claimed, pointer="/val_bpb")),
            seeds=tuple(factories.claim(seed, value) for seed, value in bits.items()),
        )
        outcome = checks.mean_differs.check(factories.submission(claims=claims, runs=runs))
        assert outcome is not None
        assert outcome.verdict is verdict, outcome.message
