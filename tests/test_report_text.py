"""The text report: order, width, colour, and nothing that a submission could smuggle to a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from harness.model import Excerpt, Location, Verdict
from harness.report import text
from harness.report.plain import DISTURBING, plain
from tests import reports


def rendered(width: int = 100, *names: str) -> str:
    names = names or ("records/one",)
    return text.render(reports.report(*(reports.submission(name) for name in names)), width, color=False)


def test_the_verdict_comes_first_and_findings_worst_first() -> None:
    output = rendered()
    assert output.startswith("FAIL  One record\n")
    order = [output.index(mark) for mark in ("fail PG101", "undecided PG102", "warn PG103", "Passed", "PG001", "Notes")]
    assert order == sorted(order)
    assert "1 fail, 1 undecided, 1 warn, 1 pass" in output


def test_places_and_commands_are_told_once() -> None:
    output = rendered()
    assert "at train.log:7, submission.json#/val_bpb, train_gpt.py[lzma]:3" in output
    assert "PG801, PG802: run `harness reproduce records/one`" in output


@pytest.mark.parametrize("width", [40, 160])
def test_lines_and_tables_stand_under_a_finding(width: int) -> None:
    place = Location("train.log", 7)
    finding = reports.finding(
        locations=(place, Location("b.log", 1)), values={"seeds": [{"seed": 1, "total_bytes": 16_000_001}]}
    )
    submission = reports.submission(
        findings=(finding,), excerpts={"train.log": Excerpt({7: "\x1b[2J  Total: 16000001 bytes" + "x" * 300})}
    )
    output = text.render(reports.report(submission), width, color=False)
    assert re.search(r"at train\.log:7\s+\\x1b\[2J  Total: 16000001", output)
    assert "at b.log:1" in output
    assert re.search(r"seed +total\n.*\n +1 +16,000,001 bytes", output)
    assert max(map(cell_len, output.splitlines())) <= width


def test_a_status_that_is_not_settled_is_told() -> None:
    assert "warn PG103 artifact-over-cap (policy: README FAQ)" in rendered()


def test_long_lists_of_places_are_cut() -> None:
    places = tuple(Location(f"log{number}", 1) for number in range(9))
    submission = reports.submission(findings=(reports.finding(locations=places),))
    assert "and 5 more" in text.render(reports.report(submission), 100, color=False)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = rendered(width, "records/one", "records/a_rather_long_name_of_a_folder_without_any_space").splitlines()
    assert max(cell_len(line) for line in lines) <= width


def test_several_folders_end_in_a_table() -> None:
    output = rendered(120, "records/one", "records/two")
    assert output.rstrip().endswith("2 folders: 2 fail")
    assert re.search(r"fail +two +1 +1 +1 +1 +PG101 PG103", output)
    assert "folders:" not in rendered(120, "records/one")


def test_colour_is_the_only_source_of_escapes() -> None:
    report = reports.report()
    assert "\x1b[" in text.render(report, 80, color=True)
    assert "\x1b" not in text.render(report, 80, color=False)


HOSTILE = "\x1b[2J\x1b]0;title\x07[red]bold[/red] :smile: \u202eevil\u2066\u200b\x9b31m\r\n\ud800"


def test_hostile_names_reach_the_terminal_as_code_points() -> None:
    finding = reports.finding(message=HOSTILE, locations=(Location(HOSTILE, 1),), authority=HOSTILE)
    submission = reports.submission(HOSTILE, name=HOSTILE, findings=(finding,), notes=(HOSTILE,))
    output = text.render(reports.report(submission, submission), 100, color=False)
    bad = {character for character in output if unicodedata.category(character) in DISTURBING} - {"\n"}
    assert bad == set()
    assert "[red]bold[/red] :smile:" in output
    assert r"\u202eevil" in output


@given(st.text(st.characters()))
def test_plain_text_holds_nothing_that_disturbs(value: str) -> None:
    assert not any(unicodedata.category(character) in DISTURBING for character in plain(value))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays(value: str) -> None:
    assert plain(value) == value


def test_a_submission_without_any_rule_says_so() -> None:
    submission = reports.submission(findings=(), notes=(), not_exercised=(), verdict=Verdict.PASS)
    assert "no rule ran" in text.render(reports.report(submission), 80, color=False)
