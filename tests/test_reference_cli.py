"""The reference model's command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_model.baselines import Comparer, Comparison, Row
from reference_model.cli import command_line


def test_bundle_writes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, small = tmp_path / "plain.py", tmp_path / "small.py"
    assert command_line(["bundle", "--preset", "demo", "--output", str(plain)]) == 0
    assert command_line(["bundle", "--preset", "demo", "--output", str(small), "--compact"]) == 0
    assert small.stat().st_size < plain.stat().st_size
    assert f"{small}: preset demo, {small.stat().st_size} bytes" in capsys.readouterr().out


def test_compare_prints_the_table_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Comparer] = []

    def compare(comparer: Comparer) -> Comparison:
        asked.append(comparer)
        return Comparison(10, 4, comparer.seconds, (Row("xz -9e", 2.0, 0.1),))

    monkeypatch.setattr(Comparer, "compare", compare)
    output = tmp_path / "table.json"
    arguments = ["compare", "--data", "d", "--run", "r", "--seconds", "5", "--json", str(output)]
    assert command_line(arguments) == 0
    assert (asked[0].data, asked[0].run, asked[0].preset, asked[0].seconds) == (Path("d"), Path("r"), "demo", 5.0)
    assert "xz -9e" in capsys.readouterr().out
    assert json.loads(output.read_text())["rows"][0]["val_bpb"] == 2.0


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["compare", "--data", str(tmp_path), "--run", str(tmp_path)]) == 2
    assert command_line(["check-bundles", "nothing"]) == 2
    assert command_line(["release", "prepare", str(tmp_path / "unknown")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("reference_model compare: TOKENIZER_PATH: ")
    assert lines[1].startswith("reference_model check-bundles: no such preset: nothing")
    assert "no such release (there are hymba_demo, hymba_mini1961, " in lines[2]
    assert len(lines) == 3


def test_release_is_prepared(tmp_path: Path) -> None:
    folder = tmp_path / "hymba_demo"
    assert command_line(["release", "prepare", str(folder)]) == 0
    assert (folder / "train_gpt.py").is_file()
    assert json.loads((folder / "submission.json").read_text())["reproduction"]["script"] == "train_gpt.py"
