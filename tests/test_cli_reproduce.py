"""The command line of `harness reproduce`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from harness.cli import main, seedtable
from harness.cli.progress import PlainProgress, cells, display
from harness.facts import reproduction
from harness.reproduce.executors.local import LocalExecutor
from harness.reproduce.progress import Snapshot
from harness.sources.folder import walk
from tests.fakescript import make_data, make_folder

LIMITS = ("--startup", "20", "--wallclock", "20", "--eval-wallclock", "20", "--grace", "1")


def test_one_command_measures_judges_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = make_folder(tmp_path), tmp_path / "evidence"
    arguments = ["reproduce", str(folder), "--seeds", "1,2", "--evidence", str(out), "--data", str(make_data(tmp_path))]
    status = main([*arguments, *LIMITS, "--allow-unsafe", "--format", "json", "--output", f"text={tmp_path / 'r.txt'}"])
    printed = capsys.readouterr()
    # The folder has no README and no log: the static rules fail it.
    assert status == 1
    document = json.loads(printed.out)
    assert document == json.loads((out / "report.json").read_text(encoding="utf-8"))
    verdicts = {row["rule"]: row["verdict"] for row in document["submissions"][0]["findings"]}
    assert [verdicts[f"PG80{digit}"] for digit in (0, 1, 3, 4, 5, 6, 7, 8)] == ["pass"] * 8
    assert verdicts["PG802"] == "undecided"
    assert not any(row["rule"].startswith("PG8") for row in document["submissions"][0]["not_exercised"])
    assert "seed 2: val_bpb 1." in printed.err
    assert "PG801" in (tmp_path / "r.txt").read_text(encoding="utf-8")
    facts = reproduction.read(out, walk(folder))
    table = seedtable.render(facts, 100)
    assert [line.split()[0] for line in table.splitlines()[3:9] if line] == ["1", "2", "mean", "std", "min"]
    assert table.count(" same ") + table.count(" same\n") == 4
    assert "val_loss" not in seedtable.render(facts, 80)
    assert max(map(len, seedtable.render(facts, 80).splitlines()[:9])) <= 80
    assert main([*arguments, *LIMITS, "--allow-unsafe"]) == 1
    again = capsys.readouterr()
    assert "seed 1: kept from an earlier run" in again.err
    assert again.out.splitlines()[1].split()[:3] == ["seed", "val_bpb", "val_loss"]


def test_a_failed_seed_is_one_row_and_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = make_folder(tmp_path, "cuda"), tmp_path / "evidence"
    status = main(["reproduce", str(folder), "--evidence", str(out), "--seeds", "1", *LIMITS, "--allow-unsafe"])
    printed = capsys.readouterr()
    assert status == 1
    assert "seed 1 failed: crash, RuntimeError: CUDA is required" in printed.out
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "isolation here is L1 (not isolated): no walls here"),
        (["--allow-unsafe", "--env", "SEED=1"], "use --seeds"),
        (["--allow-unsafe", "--data", "/nowhere/at/all"], "no such data folder"),
    ],
)
def test_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.reproduce.executors.choose.choose", lambda *_: (LocalExecutor(), "no walls here"))
    folder = make_folder(tmp_path)
    assert main(["reproduce", str(folder), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("arguments", [["--seeds", "a"], ["--steps", "0"], ["--wallclock", "-1"], ["--wallclock", "x"]])
def test_numbers_are_checked(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "folder", *arguments])
    assert stopped.value.code == 2


def test_an_interrupted_command_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = make_folder(tmp_path), tmp_path / "evidence"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PlainProgress, "update", interrupt)
    arguments = ["reproduce", str(folder), "--evidence", str(out), "--seeds", "1", *LIMITS, "--allow-unsafe"]
    assert main(arguments) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    assert not (out / "seed-1" / "run.json").exists()
    monkeypatch.undo()
    main(arguments)
    assert (out / "seed-1" / "run.json").exists()


def test_plain_lines_come_now_and_then() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = PlainProgress(stream, lambda: now[0])
    progress.planned((1,), (2,))
    for now[0] in (0.0, 1.0, 5.0, 11.0):
        progress.update(Snapshot(1, "training", now[0], 10, 100, 5432.1, 3.5, 45.0))
    progress.finished(1, "crash: \x1b[31mbad")
    assert stream.getvalue().splitlines() == [
        "seed 2: kept from an earlier run (--fresh repeats it)",
        "running seed 1",
        "seed 1: training, step 10/100, tokens/s 5,432, loss 3.5000, time 0 s, left 45 s",
        "seed 1: training, step 10/100, tokens/s 5,432, loss 3.5000, time 11 s, left 45 s",
        "seed 1: crash: \\x1b[31mbad",
    ]


def test_cells_leave_out_what_is_unknown() -> None:
    assert cells(Snapshot(1, "starting", 3.2)) == ("1", "starting", "", "", "", "3 s", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_live_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with display(stream) as progress:
        progress.planned((1, 2), ())
        progress.update(Snapshot(1, "training", 3.0, 10, 100, 5432.1, 3.5, 45.0))
        progress.finished(1, "val_bpb 1.5 [bold]")
    text = stream.getvalue()
    assert "running seeds 1, 2" in text
    assert "5,432" in text
    assert "seed 1: val_bpb 1.5 [bold]" in text
    assert sys.stderr is not stream
