"""Family homogeneity: one run under two seeds, other code, other settings, another script."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.checks import homogeneity as checks
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Location, Missing, Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, at


def decided(rule: factories.AnyRule, submission: Submission) -> Outcome:
    outcome = rule.check(submission)
    assert outcome is not None
    return outcome


def renamed(run: Run, path: str, seed: int | None = None) -> Run:
    changed = dataclasses.replace(run, location=Location(path))
    return changed if seed is None else dataclasses.replace(changed, seed=at(seed, path, 2))


def unclaimed(*runs: Run) -> Submission:
    readme = dataclasses.replace(factories.submission().readme, seeds=())
    return factories.submission(claims=factories.manifest(seeds=()), readme=readme, runs=runs)


def test_one_measurement_under_two_seeds_fails() -> None:
    twin = renamed(factories.run(1), "train_seed2.log", seed=2)
    outcome = decided(checks.one_run_two_seeds, factories.submission(runs=(factories.run(1), twin)))
    assert outcome.verdict is Verdict.FAIL
    assert [place.path for place in outcome.locations] == ["train_seed1.log", "train_seed2.log"]


def test_the_last_digit_of_the_time_keeps_two_runs_apart() -> None:
    other = renamed(factories.run(1, train_seconds=at(599.511, "train_seed2.log", 80)), "train_seed2.log", seed=2)
    assert (
        decided(checks.one_run_two_seeds, factories.submission(runs=(factories.run(1), other))).verdict is Verdict.PASS
    )


def test_many_runs_of_one_seed_are_one_note() -> None:
    runs = [renamed(factories.run(1, bits=1.2 + number / 100), f"run{number}.log") for number in range(4)]
    outcome = decided(checks.one_run_two_seeds, unclaimed(*runs))
    assert outcome.verdict is Verdict.PASS
    assert outcome.notes == ("seed 1 has 4 logs: run0.log, run1.log, run2.log, run3.log.",)


def test_a_copy_and_a_repeated_seed_are_only_noted() -> None:
    copy = renamed(factories.run(1), "train.log")
    again = renamed(factories.run(1, bits=1.21), "rerun.log")
    outcome = decided(checks.one_run_two_seeds, factories.submission(runs=(factories.run(1), copy, again)))
    assert outcome.verdict is Verdict.PASS
    assert any("train.log repeats train_seed1.log" in note for note in outcome.notes)
    assert any("rerun.log" in note for note in outcome.notes)


def test_logs_that_name_no_seed_are_undecided() -> None:
    outcome = decided(checks.one_run_two_seeds, factories.submission(runs=(factories.run(None, path="train.log"),)))
    assert outcome.verdict is Verdict.UNDECIDED


def test_a_claimed_seed_needs_a_log() -> None:
    outcome = decided(checks.seed_without_log, factories.submission(runs=(factories.run(1), factories.run(2))))
    assert outcome.verdict is Verdict.WARN
    assert "3" in outcome.message
    other = factories.run(9, path="train_seed3.log")
    outcome = decided(checks.seed_without_log, factories.submission(runs=(factories.run(1), factories.run(2), other)))
    assert outcome.message == "Claimed seeds without a log: 3; the logs also name 9."
    unnamed = factories.run(None, path="train.log")
    outcome = decided(checks.seed_without_log, factories.submission(runs=(factories.run(1), factories.run(2), unnamed)))
    assert outcome.verdict is Verdict.UNDECIDED
    assert checks.seed_without_log.check(unclaimed(factories.run(1))) is None


def two(rule: factories.AnyRule, **second: Any) -> Outcome:
    return decided(rule, factories.submission(runs=(factories.run(1), factories.run(2, **second))))


def test_other_code_for_another_seed_warns_with_both_versions() -> None:
    outcome = two(checks.code_differs_between_seeds, source=at("b" * 64, "train_seed2.log", 1))
    assert outcome.verdict is Verdict.WARN
    assert "source aaaaaaaa" in outcome.message
    assert "source bbbbbbbb" in outcome.message


def test_the_code_size_stands_in_for_an_absent_source() -> None:
    assert two(checks.code_differs_between_seeds, source=UNSTATED).verdict is Verdict.PASS
    longer = at(50_100, "train_seed2.log", 86)
    assert two(checks.code_differs_between_seeds, source=UNSTATED, code_bytes=longer).verdict is Verdict.WARN
    assert two(checks.code_differs_between_seeds, source=UNSTATED, code_bytes=UNSTATED).verdict is Verdict.UNDECIDED


def test_logs_that_nobody_claims_are_not_compared_as_seeds() -> None:
    other = factories.run(2, source=at("b" * 64, "train_seed2.log", 1))
    outcome = decided(checks.code_differs_between_seeds, unclaimed(factories.run(1), other))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "neither submission.json nor the README" in outcome.message


@pytest.mark.parametrize(
    "rule", [checks.code_differs_between_seeds, checks.configuration_differs], ids=lambda rule: rule.name
)
def test_one_run_cannot_differ_from_itself(rule: factories.AnyRule) -> None:
    assert rule.check(factories.submission(runs=(factories.run(1),))) is None


def test_a_tuned_setting_is_named_with_its_values() -> None:
    config = {"matrix_lr": at("0.05", "train_seed2.log", 11), "seed": at("2", "train_seed2.log", 12)}
    outcome = two(checks.configuration_differs, config=config)
    assert outcome.verdict is Verdict.WARN
    assert "matrix_lr (0.04 / 0.05)" in outcome.message
    assert {str(place) for place in outcome.locations} == {"train_seed1.log:11", "train_seed2.log:11"}


@pytest.mark.parametrize(
    "key", ["seed", "run_id", "data_path", "logfile", "local_rank", "master_port", "delta_bpb", "val_loss"]
)
def test_settings_that_name_a_run_are_no_difference(key: str) -> None:
    one, other = ({"vocab_size": at("1024"), key: at(value)} for value in ("a", "b"))
    runs = (factories.run(1, config=one), factories.run(2, config=other))
    assert decided(checks.configuration_differs, factories.submission(runs=runs)).verdict is Verdict.PASS


def test_a_log_without_settings_is_undecided() -> None:
    outcome = two(checks.configuration_differs, config={})
    assert outcome.verdict is Verdict.UNDECIDED
    assert "train_seed2.log" in outcome.message


def test_the_embedded_source_may_be_any_shipped_text() -> None:
    entry = factories.script(texts=("c" * 64, factories.SOURCE))
    package = factories.package(entry=at(entry, "train_gpt.py"), scripts=(entry,))
    assert decided(checks.log_of_another_script, factories.submission(package=package)).verdict is Verdict.PASS
    entry = factories.script(texts=("c" * 64,))
    package = factories.package(entry=at(entry, "train_gpt.py"), scripts=(entry,))
    outcome = decided(checks.log_of_another_script, factories.submission(package=package))
    assert outcome.verdict is Verdict.WARN
    assert outcome.locations[-1] == Location("train_gpt.py")


def test_no_script_is_undecided_and_no_embedded_source_does_not_apply() -> None:
    package = factories.package(entry=Missing("no script"), scripts=())
    assert decided(checks.log_of_another_script, factories.submission(package=package)).verdict is Verdict.UNDECIDED
    runs = (factories.run(1, source=UNSTATED),)
    assert checks.log_of_another_script.check(factories.submission(runs=runs)) is None
