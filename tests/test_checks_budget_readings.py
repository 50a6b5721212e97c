"""Family budget: the same seconds under every reading."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.checks import budget_readings as checks
from harness.facts.legality import LegalityFacts, Passage
from harness.facts.phasekinds import phase_kind
from harness.facts.runs import Phase
from harness.model import Location, Outcome, Verdict
from tests import factories
from tests.factories import at


def phase(kind: str, seconds: float) -> Phase:
    return Phase(kind, seconds, Location("a.log", 88), counted=False, kind=kind)


def calibrated(
    seconds: float, train: float | None, scored: float | None, processes: int = 8, **changes: Any
) -> Outcome:
    run = factories.run(
        1,
        train_seconds=factories.fact(train, "a.log", 80),
        eval_seconds=factories.fact(scored, "a.log", 90),
        phases=(phase("calibration", seconds),),
        world_size=at(processes, "a.log", 7),
    )
    outcome = checks.calibration_outside_budget.check(factories.submission(runs=(run,), **changes))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("train", "scored", "verdict"),
    [
        (588.0, 590.0, Verdict.PASS),  # training has room
        (600.0, 400.0, Verdict.PASS),  # evaluation has room
        (600.0, 595.0, Verdict.WARN),
        (600.0, None, Verdict.UNDECIDED),
        (None, None, Verdict.UNDECIDED),
    ],
)
def test_calibration_has_to_fit_somewhere(train: float | None, scored: float | None, verdict: Verdict) -> None:
    assert calibrated(12.0, train, scored).verdict is verdict


RECALL = Passage("collect_hessians", proved=True, steps=(at("call", "train_gpt.py", 50),), runs="live")


@pytest.mark.parametrize(
    ("train", "recall", "changes", "verdict"),
    [
        (588.0, RECALL, {}, Verdict.PASS),
        (600.0, RECALL, {}, Verdict.WARN),  # no training data is read in the evaluation time
        (None, RECALL, {}, Verdict.PASS),
        (600.0, dataclasses.replace(RECALL, runs="unknown"), {}, Verdict.PASS),
        (600.0, dataclasses.replace(RECALL, proved=False), {}, Verdict.PASS),
        (600.0, RECALL, {"calibrations": (RECALL,)}, Verdict.PASS),  # validation data, too
    ],
)
def test_training_data_is_read_in_the_training_time(
    train: float | None, recall: Passage, changes: dict[str, Any], verdict: Verdict
) -> None:
    legality = LegalityFacts(at("train_gpt.py", "train_gpt.py"), recalls=(recall,), **changes)
    outcome = calibrated(12.0, train, 400.0, legality=legality)
    assert outcome.verdict is verdict
    assert ("`collect_hessians`" in outcome.message) == (verdict is Verdict.WARN)
    assert (Location("train_gpt.py", 50) in outcome.locations) == (verdict is Verdict.WARN)


def test_seconds_of_another_machine_prove_nothing() -> None:
    assert calibrated(100.0, 600.0, 595.0, processes=1).verdict is Verdict.PASS


def test_a_calibration_that_is_announced_and_not_timed_is_undecided() -> None:
    run = factories.run(1, config={"gptq_calibration_batches": at("16", "a.log", 12)})
    outcome = checks.calibration_outside_budget.check(factories.submission(runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert outcome.locations == (Location("a.log", 12),)
    alone = dataclasses.replace(run, evaluation_only=True)
    outcome = checks.calibration_outside_budget.check(factories.submission(runs=(alone,)))
    assert outcome is not None
    assert outcome.verdict is Verdict.PASS


def evaluated(scored: float | None, *phases: Phase) -> Outcome:
    run = factories.run(1, eval_seconds=factories.fact(scored, "a.log", 90), phases=phases)
    outcome = checks.evaluation_over_cap_in_a_reading.check(factories.submission(runs=(run,)))
    assert outcome is not None
    return outcome


def test_each_reading_is_given_with_its_seconds() -> None:
    outcome = evaluated(550.0, phase("compile", 30.0), phase("diagnostic", 40.0))
    assert outcome.verdict is Verdict.WARN
    assert outcome.values == {"scored_seconds": 550.0, "with_compile_seconds": 580.0, "with_diagnostic_seconds": 620.0}
    assert "`with diagnostic`" in outcome.message
    assert evaluated(550.0, phase("compile", 30.0)).verdict is Verdict.PASS
    assert evaluated(550.0, phase("artifact", 300.0)).verdict is Verdict.PASS
    assert evaluated(None).verdict is Verdict.UNDECIDED


def test_compute_is_free_outside_the_record_track() -> None:
    claims = factories.manifest(track=at("non-record-16mb", pointer="/track"))
    for rule in checks.RULES:
        assert rule.check(factories.submission(claims=claims)) is None


def test_no_log_is_undecided() -> None:
    for rule in checks.RULES:
        outcome = rule.check(factories.submission(runs=()))
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("GPTQ:collected 67 Hessians", "calibration"),
        ("gptq:generated 64 sequences", "calibration"),
        ("gptq:calibrated 66 layers", "calibration"),
        ("GPTQ:compressed+saved", "artifact"),
        ("gptq:done", "sum"),
        ("Deserialize: decompression done", "loading"),
        ("ttt_lora:compile warmup", "compile"),
        ("ngram_tilt:precompute", "precomputation"),
        ("something else", "other"),
    ],
)
def test_phases_have_kinds(name: str, kind: str) -> None:
    assert phase_kind(name) == kind
