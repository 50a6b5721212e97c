"""Family budget: seconds against the caps, and whom the caps bind."""

from __future__ import annotations

import pytest

from harness.checks import budget as checks
from harness.model import Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, at


def training(seconds: float | None, step: float | None = 0.1, **changes: object) -> Outcome | None:
    run = factories.run(
        1,
        train_seconds=factories.fact(seconds, "a.log", 80),
        step_overshoot_seconds=factories.fact(step, "a.log", 80),
        world_size=at(changes.pop("processes", 8), "a.log", 7),
    )
    return checks.training_over_cap.check(factories.submission(runs=(run,), **changes))


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (60.0, Verdict.PASS),
        (600.0, Verdict.PASS),
        (600.15, Verdict.PASS),  # within two steps
        (600.9, Verdict.WARN),
        (620.0, Verdict.FAIL),
        (None, Verdict.UNDECIDED),
    ],
)
def test_training_seconds(seconds: float | None, verdict: Verdict) -> None:
    outcome = training(seconds)
    assert outcome is not None
    assert outcome.verdict is verdict


def test_an_overshoot_names_the_step() -> None:
    outcome = training(600.15)
    assert outcome is not None
    assert "within two steps of 0.100 s" in outcome.message


def test_unknown_step_other_machine_and_unknown_track_are_undecided() -> None:
    no_track = factories.manifest(track=UNSTATED)
    for outcome in (
        training(700.0, None),
        training(700.0, processes=1),
        training(700.0, claims=no_track, folder="somewhere"),
    ):
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("track", ["non-record-16mb", "non_record_16mb", "non-record-unlimited-compute-16mb"])
def test_compute_is_free_outside_the_record_track(track: str) -> None:
    claims = factories.manifest(track=at(track, pointer="/track"))
    assert training(9_000.0, claims=claims) is None
    assert checks.evaluation_over_cap.check(factories.submission(claims=claims)) is None


def test_the_folder_tells_the_track_when_the_manifest_does_not() -> None:
    claims = factories.manifest(track=UNSTATED)
    assert checks.track(factories.submission(claims=claims)) == "record"
    assert checks.track(factories.submission(claims=claims, folder="track_non_record_16mb/x")) == "non-record"
    assert checks.track(factories.submission(claims=claims, folder="x")) == ""


def evaluation(total: float, phases: tuple[float, ...], processes: int = 8) -> Outcome:
    scores = tuple(factories.score(eval_seconds=at(seconds, "a.log", 90)) for seconds in phases)
    run = factories.run(1, eval_seconds=at(total, "a.log", 90), scores=scores, world_size=at(processes, "a.log", 7))
    outcome = checks.evaluation_over_cap.check(factories.submission(runs=(run,)))
    assert outcome is not None
    return outcome


def test_one_phase_above_the_cap_fails_and_a_sum_warns() -> None:
    assert evaluation(599.9, (599.9,)).verdict is Verdict.PASS
    assert evaluation(650.0, (650.0,)).verdict is Verdict.FAIL
    outcome = evaluation(650.0, (400.0, 250.0))
    assert outcome.verdict is Verdict.WARN
    assert "disputed" in outcome.message


def test_a_diagnostic_phase_does_not_fail() -> None:
    scores = (factories.score(eval_seconds=at(700.0, "a.log", 90), diagnostic=True),)
    run = factories.run(1, eval_seconds=at(700.0, "a.log", 90), scores=scores)
    outcome = checks.evaluation_over_cap.check(factories.submission(runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN


def test_evaluation_on_another_machine_or_untimed_is_undecided() -> None:
    assert evaluation(700.0, (700.0,), processes=1).verdict is Verdict.UNDECIDED
    runs = (factories.run(1), factories.run(2, eval_seconds=UNSTATED))
    outcome = checks.evaluation_over_cap.check(factories.submission(runs=runs))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert "train_seed2.log" in outcome.message


def test_a_run_on_an_unknown_number_of_processes_is_undecided() -> None:
    run = factories.run(1, train_seconds=at(900.0, "a.log", 80), world_size=UNSTATED)
    outcome = checks.training_over_cap.check(factories.submission(runs=(run,)))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert "does not tell on how many processes" in outcome.message


def test_a_log_that_does_not_hold_the_claimed_score_only_warns() -> None:
    slow = factories.run(1, 1.4, path="sweep_seed1.log", train_seconds=at(900.0, "sweep_seed1.log", 80))
    runs = (slow, *(factories.run(seed) for seed in (1, 2, 3)))
    outcome = checks.training_over_cap.check(factories.submission(runs=runs))
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN
    assert "sweep_seed1.log is not the one" in outcome.message
