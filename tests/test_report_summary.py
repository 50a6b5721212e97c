from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.model import Value, Verdict
from harness.report import summary
from tests.reports import finding, report, submission

FACTS: dict[str, Value] = {
    "claims": {"val_bpb": {"value": 1.2, "path": "submission.json"}, "date": {"missing": "no date"}},
    "runs": [
        {"seed": {"value": 1, "path": "a.log", "line": 3}, "config": {"lr": {"value": "1", "path": "a.log"}}},
        {"seed": {"missing": "the log holds none"}, "config": {"wd": {"value": "0", "path": "b.log"}}},
    ],
    "entry": {"value": {"parsed": {"value": True, "path": "t.py"}}, "path": "t.py"},
}


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


def test_rules_and_facts_are_counted() -> None:
    passed = submission("b", verdict=Verdict.PASS, findings=(finding(verdict=Verdict.PASS),))
    text = summary.render(report(submission("a", facts=FACTS), passed))
    assert text.startswith("2 folders: 1 pass, 0 warn, 0 undecided, 1 fail\n")
    counted = rows(text)
    assert counted["PG101"] == ["artifact-over-cap", "1", "-", "-", "1", "-"]
    assert counted["PG103"] == ["artifact-over-cap", "-", "1", "-", "-", "1"]
    assert counted["claims.val_bpb"] == ["1", "-"]
    assert counted["claims.date"] == ["-", "1"]
    assert counted["runs.seed"] == ["1", "1"]
    assert counted["runs.config"] == ["2", "-"], "settings are one kind of fact, whatever their names"
    assert counted["entry"] == counted["entry.parsed"] == ["1", "-"]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parent / "rules" / "ordinary"
    assert main(["audit", str(folder), "--format", "summary"]) == 0
    assert "PG101  artifact-over-cap" in capsys.readouterr().out
