"""What reading and running say together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checks.combined import COUNTERPARTS, combine
from harness.checks.legality import RULES
from harness.facts.probe import ProbeFacts
from harness.model import Finding, Location, Status, Verdict
from tests import factories, probefacts

HERE = Location("train_gpt.py", 12)


def finding(rule: str, verdict: Verdict, *places: Location) -> Finding:
    return Finding(rule, "a-name", "legality", verdict, f"{rule} says so.", {}, places, "README", Status.SETTLED)


@pytest.fixture
def facts(tmp_path: Path) -> ProbeFacts:
    executed: Any = [{"path": "train_gpt.py", "ranges": [[1, 20], [30, 40]]}, {"path": "<unpacked 1>", "ranges": []}]
    executed.append({"path": "<unpacked 2>", "ranges": [[5, 6]]})
    return probefacts.facts(probefacts.script_folder(tmp_path), executed=executed)


def together(facts: ProbeFacts, *findings: Finding) -> dict[str, Finding]:
    found = combine(findings, factories.submission(probe=facts))
    assert [each.rule for each in found] == [each.rule for each in findings]
    return {each.rule: each for each in found}


def test_two_fails_agree(facts: ProbeFacts) -> None:
    found = together(facts, finding("PG601", Verdict.FAIL, HERE), finding("PG704", Verdict.FAIL))
    assert found["PG601"].verdict is Verdict.FAIL
    assert "The probe agrees (PG704)" in found["PG601"].message
    assert found["PG704"].message == "PG704 says so."


def test_a_fail_that_running_through_its_lines_does_not_show_warns_with_both(facts: ProbeFacts) -> None:
    found = together(facts, finding("PG603", Verdict.FAIL, HERE, Location("README.md")), finding("PG704", Verdict.PASS))
    assert found["PG603"].verdict is Verdict.WARN
    assert "PG603 says so. Running" in found["PG603"].message
    assert "PG704: PG704 says so." in found["PG603"].message


@pytest.mark.parametrize("place", [Location("train_gpt.py", 25), Location("train_gpt.py"), Location("README.md", 3)])
def test_a_fail_in_lines_that_did_not_run_stays(facts: ProbeFacts, place: Location) -> None:
    found = together(facts, finding("PG601", Verdict.FAIL, HERE, place), finding("PG704", Verdict.PASS))
    if place.line == 25:
        assert found["PG601"].verdict is Verdict.FAIL
        assert "did not exercise" in found["PG601"].message
    else:
        assert found["PG601"].verdict is Verdict.WARN


@pytest.mark.parametrize(("verdict", "resolved"), [(Verdict.PASS, True), (Verdict.UNDECIDED, False)])
def test_what_reading_leaves_open_passes_where_running_shows_it(
    facts: ProbeFacts, verdict: Verdict, *, resolved: bool
) -> None:
    probed = finding("PG708", verdict), finding("PG709", Verdict.PASS)
    found = together(facts, finding("PG620", Verdict.UNDECIDED, HERE), *probed)
    assert (found["PG620"].verdict is Verdict.PASS) is resolved
    assert ("running does not" in found["PG620"].message) is resolved


@pytest.mark.parametrize("code", ["PG602", "PG606", "PG622"])
def test_one_answer_of_two_that_are_needed_leaves_it_open(facts: ProbeFacts, code: str) -> None:
    first, second = COUNTERPARTS[code].deciding
    for missing in (finding(second, Verdict.UNDECIDED), None):
        said = [finding(code, Verdict.UNDECIDED, HERE), finding(first, Verdict.PASS), *([missing] if missing else [])]
        assert together(facts, *said)[code].verdict is Verdict.UNDECIDED
    failed = finding(code, Verdict.FAIL, HERE), finding(first, Verdict.PASS)
    assert together(facts, *failed)[code].verdict is Verdict.FAIL


@pytest.mark.parametrize("place", [Location("train_gpt.py"), Location("helper.c", 3)])
def test_a_place_that_no_line_tells_of_stays_open(facts: ProbeFacts, place: Location) -> None:
    found = together(facts, finding("PG601", Verdict.UNDECIDED, place), finding("PG704", Verdict.PASS))
    assert found["PG601"].verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("other", [Verdict.FAIL, Verdict.WARN])
def test_another_doubt_of_the_probe_leaves_it_open(facts: ProbeFacts, other: Verdict) -> None:
    said = finding("PG601", Verdict.UNDECIDED, HERE), finding("PG703", other), finding("PG704", Verdict.PASS)
    assert together(facts, *said)["PG601"].verdict is Verdict.UNDECIDED


def test_a_pass_and_no_evidence_change_nothing(facts: ProbeFacts) -> None:
    passed = finding("PG601", Verdict.PASS, HERE)
    assert together(facts, passed, finding("PG704", Verdict.FAIL))["PG601"] == passed
    failed = finding("PG601", Verdict.FAIL, HERE)
    assert combine([failed], factories.submission()) == [failed]


def test_lines_of_a_packed_script_are_those_of_its_innermost_text(facts: ProbeFacts) -> None:
    assert facts.went_through(Location("train_gpt.py", 5, layer="lzma")) is True
    assert facts.went_through(Location("train_gpt.py", 6, layer="lzma")) is False
    assert facts.went_through(Location("other.py", 6)) is None


def test_every_rule_of_order_has_counterparts() -> None:
    assert {rule.code for rule in RULES} <= set(COUNTERPARTS)
