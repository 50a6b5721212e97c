"""Family size: stubs and helpers that a way of counting leaves out."""

from __future__ import annotations

import pytest

from harness.checks import size_files as checks
from harness.facts.package import ShippedFile
from harness.facts.size import SizeFacts
from harness.model import Location, Outcome, Verdict
from tests import factories
from tests.factories import UNSTATED, AnyRule, at

HELPER = 40_000


def check(rule: AnyRule, own: int, layers: tuple[str, ...] = (), logged: int | None = None) -> Outcome:
    """One script with one helper of 40,000 bytes, with what the logs count."""
    entry = factories.script(size_bytes=own, layers=layers)
    package = factories.package(
        entry=at(entry, "train_gpt.py"),
        files=(ShippedFile("train_gpt.py", own), ShippedFile("helper.py", HELPER)),
    )
    size = SizeFacts(
        entry_code_bytes=at(own, "train_gpt.py"),
        all_code_bytes=at(own + HELPER, "train_gpt.py"),
        code_files=("helper.py", "train_gpt.py"),
        per_seed=(factories.seed_size(1, 15_990_000, all_helpers_bytes=at(16_030_000, "train_seed1.log", 85)),),
        named_at={"helper.py": Location("train_gpt.py", 7)},
    )
    runs = (factories.run(1, code_bytes=factories.fact(logged, "train_seed1.log", 86)),)
    outcome = rule.check(factories.submission(package=package, size=size, runs=runs))
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("own", "layers", "verdict"),
    [
        (74, ("file:helper.py",), Verdict.WARN),
        (5_000, ("file:helper.py",), Verdict.WARN),
        (1_900, (), Verdict.WARN),  # imports, and is 5% of the code
        (2_001, (), Verdict.PASS),
        (50_000, (), Verdict.PASS),
        (0, (), Verdict.PASS),  # an empty file leads nowhere
    ],
)
def test_a_stub_is_short_or_runs_a_file(own: int, layers: tuple[str, ...], verdict: Verdict) -> None:
    assert check(checks.stub_hides_code, own, layers).verdict is verdict


def test_a_stub_is_named_with_every_accounting() -> None:
    outcome = check(checks.stub_hides_code, 74, ("file:helper.py",), logged=HELPER)
    assert "helper.py (40,000 bytes)" in outcome.message
    assert "the logs 40,000 bytes" in outcome.message
    assert "all code files 16,030,000 bytes, over the cap" in outcome.message
    assert Location("train_gpt.py", 7) in outcome.locations


@pytest.mark.parametrize(
    ("logged", "verdict"),
    [
        (50_000, Verdict.WARN),
        (90_000, Verdict.PASS),
        (HELPER, Verdict.PASS),
        (51_000, Verdict.UNDECIDED),
        (None, Verdict.UNDECIDED),
    ],
)
def test_helpers_are_counted_or_not(logged: int | None, verdict: Verdict) -> None:
    assert check(checks.helper_uncounted, 50_000, logged=logged).verdict is verdict


def test_without_an_entry_both_are_undecided() -> None:
    made = factories.submission(package=factories.package(entry=UNSTATED))
    for rule in checks.RULES:
        outcome = rule.check(made)
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED
