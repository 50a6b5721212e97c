"""Family homogeneity: shards, names and environments of the runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.checks import homogeneity as settings
from harness.checks import homogeneity_runs as checks
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, at


def decided(rule: factories.AnyRule, *runs: Run) -> Outcome:
    outcome = rule.check(factories.submission(runs=runs))
    assert outcome is not None
    return outcome


def two(rule: factories.AnyRule, **second: Any) -> Outcome:
    return decided(rule, factories.run(1), factories.run(2, **second))


def unclaimed(*runs: Run) -> Submission:
    readme = dataclasses.replace(factories.submission().readme, seeds=())
    return factories.submission(claims=factories.manifest(seeds=()), readme=readme, runs=runs)


def test_mixed_shards_warn_with_a_table() -> None:
    outcome = two(checks.mixed_shards, train_shards=at(39, "b.log", 9))
    assert outcome.verdict is Verdict.WARN
    assert outcome.values["differences"] == [{"setting": "training shards", "seed 1": "80", "seed 2": "39"}]
    assert two(checks.mixed_shards).verdict is Verdict.PASS
    assert two(checks.mixed_shards, train_shards=UNSTATED).verdict is Verdict.UNDECIDED
    assert checks.mixed_shards.check(unclaimed(factories.run(1))) is None


def test_unclaimed_logs_that_differ_are_undecided() -> None:
    other = factories.run(2, train_shards=at(39, "b.log", 9), world_size=at(1, "b.log", 7))
    for rule in (checks.mixed_shards, checks.environment_differs):
        outcome = rule.check(unclaimed(factories.run(1), other))
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED


def named(run: Run, seed: int) -> Run:
    return dataclasses.replace(run, named_seed=at(seed, run.location.path))


def test_a_log_named_after_another_seed_warns() -> None:
    rule = checks.seed_under_two_names
    outcome = decided(rule, named(factories.run(1), 1), named(factories.run(1, bits=1.21, path="seed2.log"), 2))
    assert outcome.verdict is Verdict.WARN
    assert "all 2 named logs print one seed" in outcome.message
    assert outcome.values["differences"] == [{"setting": "seed2.log", "named": 2, "printed": 1}]
    assert decided(rule, named(factories.run(1), 1), factories.run(2)).verdict is Verdict.PASS


def test_seeds_known_from_names_alone_say_nothing() -> None:
    from_name = dataclasses.replace(factories.run(1), seed=at(1, "train_seed1.log"))
    assert checks.seed_under_two_names.check(factories.submission(runs=(from_name,))) is None
    assert decided(checks.seed_under_two_names, factories.run(None, path="a.log")).verdict is Verdict.UNDECIDED
    assert decided(checks.seed_under_two_names).verdict is Verdict.UNDECIDED


def test_another_environment_warns_with_a_table() -> None:
    rule = checks.environment_differs
    outcome = two(rule, world_size=at(4, "b.log", 7))
    assert outcome.verdict is Verdict.WARN
    assert outcome.values["differences"] == [{"setting": "processes", "seed 1": "8", "seed 2": "4"}]
    old, new = ({"pytorch": at(version, "a.log", 3)} for version in ("2.9.1", "2.11.0"))
    outcome = decided(rule, factories.run(1, versions=old), factories.run(2, versions=new))
    assert "pytorch (2.9.1 / 2.11.0)" in outcome.message
    assert two(rule).verdict is Verdict.PASS
    apart = decided(rule, factories.run(1, versions=old, world_size=UNSTATED), factories.run(2))
    assert apart.verdict is Verdict.UNDECIDED
    silent = [factories.run(seed, world_size=UNSTATED) for seed in (1, 2)]
    assert rule.check(factories.submission(runs=tuple(silent))) is None
    assert rule.check(unclaimed(factories.run(1))) is None


def logged(pairs: dict[str, str]) -> dict[str, Located[str]]:
    return {key: at(value, "train.log", 3) for key, value in pairs.items()}


def test_timings_are_no_settings_and_differences_are_rows() -> None:
    first = {"matrix_lr": "0.04", "elapsed": "11.83s", "where": "/mnt/a", "blob_bytes": "15741311"}
    second = {"matrix_lr": "0.02", "elapsed": "11.90s", "where": "/mnt/b", "blob_bytes": "15783259"}
    rule = settings.configuration_differs
    outcome = decided(rule, factories.run(1, config=logged(first)), factories.run(2, config=logged(second)))
    assert outcome.values["differences"] == [{"setting": "matrix_lr", "seed 1": "0.04", "seed 2": "0.02"}]
    assert outcome.values["different_count"] == 1
