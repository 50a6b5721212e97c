"""Evidence of probes as documents, its summary, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.probe import summary
from harness.model import HarnessError, Located
from harness.probe.notrun import functions_not_run
from harness.sources import probeevidence
from tests.probefacts import CRASH, document, facts, script_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return script_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "probe.json is missing"),
        ("{", "not readable as JSON"),
        ("[]", "probe.json"),
        ('{"schema": "probe/2"}', "probe.json"),
        ("[" * 100_000, "not readable as JSON"),
    ],
)
def test_broken_evidence_is_one_clear_error(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "probe.json").write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError, match=told):
        probeevidence.read(tmp_path)


def test_evidence_beyond_the_cap_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probeevidence, "DOCUMENT_CAP_BYTES", 10)
    (tmp_path / "probe.json").write_text(" " * 11, encoding="utf-8")
    with pytest.raises(HarnessError, match="larger than 10 bytes"):
        probeevidence.read(tmp_path)


def test_a_document_that_the_schema_rejects_is_not_written(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"probe\.json"):
        probeevidence.write(folder, document(folder, {"ended": "somehow"}))
    assert not probeevidence.has_evidence(folder)


def test_functions_that_never_ran_are_named(folder: Path) -> None:
    text = "def alive():\n    return 1\n\nclass A:\n    def dead(self):\n        return 2\n\ndef gone():\n    pass\n"
    assert functions_not_run(text, [(1, 3), (4, 6), (8, 9)]) == ["A.dead", "gone"]
    assert functions_not_run("def (", []) == []
    told = summary(facts(folder, not_run=["A.dead", "gone"]))
    assert "not exercised: functions that the traced run never entered: A.dead; gone" in told


def test_the_summary_says_what_ran_and_what_did_not(folder: Path) -> None:
    crash = CRASH | {"path": "train_gpt.py", "line": 1, "message": "no \x1b[31mx"}
    text = summary(facts(folder, {"returncode": 1, "val_bpb": None, "crash": crash}))
    assert "no final score, 4 s, 300 MB" in text
    assert "train_gpt.py:1 (blame: script; nothing defines x)" in text
    assert "shrunk: ITERATIONS: 20000 -> 8" in text
    assert "\x1b" not in text


@pytest.mark.slow
def test_the_command_probes_and_prints_one_document(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["probe", str(folder), "--evidence", str(tmp_path / "out"), "--seconds", "60", "--allow-unsafe"]
    assert main([*arguments, "--format", "json"]) == 1  # the folder has no README
    printed = capsys.readouterr()
    report = json.loads(printed.out)["submissions"][0]
    verdicts = {row["rule"]: row["verdict"] for row in report["findings"]}
    assert (verdicts["PG701"], verdicts["PG702"]) == ("pass", "warn")
    assert report["facts"]["probe"]["script"] == "train_gpt.py"
    assert "bare: train_gpt.py on" in printed.err
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["submissions"] == [report]
    assert main([*arguments]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main([*arguments, "--fresh"]) == 1
    assert "bare: no final score" in capsys.readouterr().out


def test_without_torch_the_command_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.cli.probing.NEEDED", ("torch", "nothing_of_this_name"))
    assert main(["probe", str(folder)]) == 2
    assert "nothing_of_this_name, not installed here: pip install" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "x", "100000"])
def test_seconds_out_of_reach_are_refused(folder: Path, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["probe", str(folder), "--seconds", seconds])
    assert "expected seconds" in capsys.readouterr().err


def test_facts_of_a_probe_have_places(folder: Path) -> None:
    found = facts(folder)
    [run] = found.runs
    assert isinstance(run.val_bpb, Located)
    assert str(run.val_bpb.location) == "probe.json#/runs/0/val_bpb"
    assert run.approximated == ("torch.compile: runs uncompiled",)
