"""PG8xx on measurements made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.checks import reproduction as rules
from harness.checks import reproduction_limits as limits
from harness.facts.reproduction import ReproductionFacts, SeedMeasurement, summarize
from harness.facts.submission import Submission
from harness.model import Evidence, Missing, Outcome, Rule, Verdict
from tests import factories
from tests.factories import at

BITS = {1: 1.2000, 2: 1.2030, 3: 1.2060}  # claimed
LOSS_PER_BIT = 1.6885
MISSING = Missing("not declared")


def measured(seed: int = 1, bits: float | None = None, **changes: Any) -> SeedMeasurement:
    bits = BITS[seed] if bits is None else bits
    log, document = f"seed-{seed}/train.log", f"seed-{seed}/run.json"
    made = SeedMeasurement(
        seed=seed,
        outcome="ok",
        detail="",
        machine_lacks="",
        val_bpb=at(bits, log, 90),
        val_loss=at(bits * LOSS_PER_BIT, log, 90),
        steps=at(13_000, document),
        step_milliseconds=at(46.0, document),
        startup_seconds=at(30.0, document),
        train_seconds=at(599.0, document),
        eval_seconds=at(70.0, document),
        model_bytes=at(15_000_000, document),
        artifact_bytes=at(15_050_000, document),
        all_code_bytes=at(15_060_000, document),
        logged_bytes=at(15_050_000, document),
        artifact_sha256=at("a" * 64, document),
        repacked=at(value=True, path=document),
        repack_detail="",
        rescored_val_bpb=at(bits, f"seed-{seed}/rescore.log", 9),
        rescore_detail="",
        peak_memory_bytes=at(2**30, document),
        survivors=0,
    )
    return dataclasses.replace(made, **changes)


def reproduced(*seeds: SeedMeasurement, **changes: Any) -> Submission:
    seeds = seeds or tuple(measured(seed) for seed in BITS)
    made = ReproductionFacts(
        folder_sha256="f" * 64,
        stale=False,
        comparable=at(value=True, path="plan.json"),
        differences=(),
        train_limit_seconds=at(600.0, "plan.json"),
        eval_limit_seconds=at(600.0, "plan.json"),
        isolation="L1 (not isolated)",
        seeds=seeds,
        summary=summarize(seeds),
    )
    claims = factories.manifest_with(
        factories.manifest(val_bpb=at(1.203), val_bpb_std=at(0.003)),
        *(factories.claim(seed, bits) for seed, bits in BITS.items()),
    )
    runs = (factories.run(1, steps=at(13_000)),)
    return factories.submission(claims=claims, runs=runs, reproduction=dataclasses.replace(made, **changes))


def verdict(rule: Rule[Submission], submission: Submission) -> Verdict | None:
    outcome = rule.check(submission)
    return None if outcome is None else outcome.verdict


def outcome_of(rule: Rule[Submission], submission: Submission) -> Outcome:
    outcome = rule.check(submission)
    assert outcome is not None
    return outcome


def test_a_faithful_reproduction_passes_everything() -> None:
    assert {rule.code: verdict(rule, reproduced()) for rule in rules.RULES} == {
        f"PG80{digit}": Verdict.PASS for digit in range(9)
    }


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.code)
def test_every_rule_needs_a_reproduction_and_has_a_page(rule: Rule[Submission]) -> None:
    assert rule.needs is Evidence.REPRODUCTION
    assert verdict(rule, factories.submission()) is None
    for section in ("What it checks:", "Why it matters:", "Evidence:", "How to fix:"):
        assert section in rule.page


@pytest.mark.parametrize("rule", rules.RULES[1:], ids=lambda rule: rule.code)
def test_stale_evidence_is_silent_but_for_one_rule(rule: Rule[Submission]) -> None:
    stale = reproduced(stale=True)
    assert verdict(rules.evidence_stale, stale) is Verdict.UNDECIDED
    assert verdict(rule, stale) is None


@pytest.mark.parametrize("rule", rules.RULES[2:], ids=lambda rule: rule.code)
def test_when_every_seed_failed_one_rule_says_so(rule: Rule[Submission]) -> None:
    crashed = measured(outcome="crash", detail="ValueError: no", val_bpb=MISSING, artifact_bytes=MISSING)
    assert verdict(rule, reproduced(crashed)) is None


@pytest.mark.parametrize(
    ("lacks", "expected"), [("", Verdict.FAIL), ("a CUDA device", Verdict.UNDECIDED)], ids=["script", "machine"]
)
def test_failed_seed(lacks: str, expected: Verdict) -> None:
    failed = measured(2, outcome="crash", detail="RuntimeError: no", machine_lacks=lacks)
    outcome = outcome_of(rules.seed_failed, reproduced(measured(1), failed))
    assert outcome.verdict is expected
    assert "1 of 2 seeds failed: seed 2: crash, RuntimeError: no" in outcome.message
    assert [str(place) for place in outcome.locations] == ["seed-2/run.json#/outcome"]


def test_a_failure_of_the_script_weighs_more_than_one_of_the_machine() -> None:
    seeds = (measured(1, outcome="timeout"), measured(2, outcome="crash", machine_lacks="the package x"))
    assert verdict(rules.seed_failed, reproduced(*seeds)) is Verdict.FAIL


def test_no_seed_yet_is_undecided() -> None:
    nothing = dataclasses.replace(reproduced(), reproduction=MISSING)
    facts = reproduced().reproduction
    assert not isinstance(facts, Missing)
    nothing = factories.submission(reproduction=dataclasses.replace(facts, seeds=(), summary=()))
    assert verdict(rules.seed_failed, nothing) is Verdict.UNDECIDED


# Claimed 1.203 with a deviation of 0.003; the margin is 0.005 / 1.6885 = 0.00296 BPB, and the standard error of the
# difference of two means of three is 0.003 * sqrt(2/3) = 0.00245, so that 0.00296 + 3 * 0.00245 = 0.01031 is allowed.
@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0.0, Verdict.PASS),
        (0.0029, Verdict.PASS),
        (0.0031, Verdict.WARN),
        (0.0102, Verdict.WARN),
        (0.0105, Verdict.FAIL),
        (-0.1, Verdict.PASS),
    ],
)
def test_measured_against_claimed(shift: float, expected: Verdict) -> None:
    submission = reproduced(*(measured(seed, bits + shift) for seed, bits in BITS.items()))
    outcome = outcome_of(rules.claim_not_reproduced, submission)
    assert outcome.verdict is expected
    assert outcome.values["difference_bpb"] == pytest.approx(shift, abs=1e-7)
    assert outcome.values["margin_bpb"] == pytest.approx(0.005 / LOSS_PER_BIT)
    assert outcome.values["standard_error_bpb"] == pytest.approx(0.003 * (2 / 3) ** 0.5, rel=1e-4)


def test_seeds_are_compared_with_their_own_claims() -> None:
    outcome = outcome_of(rules.claim_not_reproduced, reproduced(measured(3)))
    assert outcome.values["claimed_bpb"] == BITS[3]
    assert outcome.verdict is Verdict.PASS


def test_one_seed_without_any_deviation_cannot_fail() -> None:
    submission = reproduced(measured(1, 1.4))
    claims = dataclasses.replace(submission.claims, val_bpb_std=MISSING)
    outcome = outcome_of(rules.claim_not_reproduced, dataclasses.replace(submission, claims=claims))
    assert outcome.verdict is Verdict.WARN
    assert outcome.values["standard_error_bpb"] is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"comparable": at(value=False), "differences": ("trained for at most 5 s here",)}, "trained for at most 5 s"),
        ({"comparable": Missing("the data is not declared")}, "the data is not declared"),
    ],
)
def test_other_conditions_are_not_compared(changes: dict[str, Any], told: str) -> None:
    outcome = outcome_of(rules.claim_not_reproduced, reproduced(**changes))
    assert outcome.verdict is Verdict.UNDECIDED
    assert told in outcome.message


def test_other_numbers_of_steps_are_not_compared() -> None:
    slow = reproduced(measured(1, steps=at(9_000)))
    outcome = outcome_of(rules.claim_not_reproduced, slow)
    assert outcome.verdict is Verdict.UNDECIDED
    assert "9000 steps were trained here, 13000 for the claim" in outcome.message


def test_artifact_not_rebuilt() -> None:
    other = measured(2, repacked=at(value=False), repack_detail="10 bytes, first 11")
    outcome = outcome_of(rules.artifact_not_rebuilt, reproduced(measured(1), other))
    assert outcome.verdict is Verdict.FAIL
    assert "seed 2: 10 bytes, first 11" in outcome.message
    undeclared = reproduced(measured(1, repacked=MISSING))
    assert verdict(rules.artifact_not_rebuilt, undeclared) is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("shift", "expected"),
    [(0.0, Verdict.PASS), (9e-7, Verdict.PASS), (5e-5, Verdict.WARN), (2e-4, Verdict.FAIL), (-2e-4, Verdict.FAIL)],
)
def test_rescored(shift: float, expected: Verdict) -> None:
    again = measured(1, rescored_val_bpb=at(BITS[1] + shift, "seed-1/rescore.log", 9))
    outcome = outcome_of(rules.rescore_differs, reproduced(again, measured(2)))
    assert outcome.verdict is expected


def test_rescoring_that_crashed_fails_and_undeclared_is_undecided() -> None:
    crashed = measured(1, rescored_val_bpb=MISSING, rescore_detail="crash, FileNotFoundError: train shards")
    outcome = outcome_of(rules.rescore_differs, reproduced(crashed))
    assert outcome.verdict is Verdict.FAIL
    assert "FileNotFoundError" in outcome.message
    assert verdict(rules.rescore_differs, reproduced(measured(1, rescored_val_bpb=MISSING))) is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("rule", "field", "seconds", "expected"),
    [
        (limits.training_over_limit, "train_seconds", 600.09, Verdict.PASS),  # two steps of 46 ms
        (limits.training_over_limit, "train_seconds", 600.1, Verdict.WARN),
        (limits.evaluation_over_limit, "eval_seconds", 600.0, Verdict.PASS),
        (limits.evaluation_over_limit, "eval_seconds", 600.1, Verdict.WARN),
    ],
)
def test_times(rule: Rule[Submission], field: str, seconds: float, expected: Verdict) -> None:
    changes: dict[str, Any] = {field: at(seconds)}
    slow = measured(2, **changes)
    outcome = outcome_of(rule, reproduced(measured(1), slow))
    assert outcome.verdict is expected
    assert outcome.values["longest_seconds"] == seconds
    changes = {field: MISSING}
    unknown = measured(1, **changes)
    assert verdict(rule, reproduced(unknown)) is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("script", "every", "logged", "expected"),
    [
        (16_000_000, 16_000_000, 16_000_000, Verdict.PASS),
        (16_000_000, 16_000_001, 16_000_000, Verdict.WARN),
        (16_000_001, 16_000_001, 15_999_999, Verdict.WARN),
        (16_000_001, 16_000_001, 16_000_001, Verdict.FAIL),
        (16_000_001, 16_000_001, None, Verdict.FAIL),
    ],
)
def test_cap(script: int, every: int, logged: int | None, expected: Verdict) -> None:
    stated = MISSING if logged is None else at(logged)
    seed = measured(1, artifact_bytes=at(script), all_code_bytes=at(every), logged_bytes=stated)
    assert verdict(limits.measured_artifact_over_cap, reproduced(measured(2), seed)) is expected


@pytest.mark.parametrize(
    ("logged", "expected"),
    [(15_050_000, Verdict.PASS), (14_900_000, Verdict.PASS), (14_000_000, Verdict.WARN), (None, Verdict.UNDECIDED)],
)
def test_logged_size(logged: int | None, expected: Verdict) -> None:
    seed = measured(1, logged_bytes=MISSING if logged is None else at(logged))
    assert verdict(limits.logged_size_differs, reproduced(seed)) is expected


def test_summary_leaves_failed_seeds_out() -> None:
    rows = (measured(1), measured(2), measured(3, outcome="crash"))
    mean = next(aggregate for aggregate in summarize(rows) if aggregate.column == "val_bpb")
    assert (mean.count, mean.minimum, mean.maximum) == (2, BITS[1], BITS[2])
    assert mean.mean == pytest.approx(1.2015, abs=1e-6)
    assert mean.std == pytest.approx(0.003 / 2**0.5, rel=1e-4)
    assert summarize(rows[2:]) == ()
