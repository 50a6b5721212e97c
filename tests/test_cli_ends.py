"""How commands end that cannot go on: one line that says why, and the status that goes with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

import pytest

import harness
from harness import cli
from harness.cli import interrupts, output
from tests.clifolders import one_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return one_record(tmp_path)


def ended_by(error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr("harness.audit.audit_folders", end)
    return cli.main(["audit", str(folder)])


def test_a_place_that_the_system_refuses_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_by(PermissionError(13, "Permission denied", "a/b"), folder, monkeypatch) == output.EXIT_USAGE
    assert ended_by(OSError(28, "No space left on device"), folder, monkeypatch) == output.EXIT_USAGE
    told = capsys.readouterr().err
    assert told == "harness audit: a/b: Permission denied\nharness audit: No space left on device\n"


def test_a_file_of_our_own_or_none_at_all_is_our_mistake(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = FileNotFoundError(2, "No such file", str(Path(harness.__file__).parent / "absent.json"))
    for error in (own, OSError(9, "Bad file descriptor")):
        assert ended_by(error, folder, monkeypatch) == output.EXIT_INTERNAL
        assert "our own mistake" in capsys.readouterr().err


def test_an_interruption_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_by(KeyboardInterrupt(), folder, monkeypatch) == output.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "harness audit: interrupted\n"


def test_termination_is_an_interruption_and_clears_away(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "work"
    place.mkdir()
    before = signal.getsignal(signal.SIGTERM)

    def terminated(*_: object) -> None:
        with tempfile.TemporaryDirectory(dir=place):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("harness.audit.audit_folders", terminated)
    assert cli.main(["audit", str(folder)]) == output.EXIT_INTERRUPTED
    assert list(place.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_termination_ends_a_copy_of_the_process_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    with interrupts.terminated_like_interrupted():
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        frame: FrameType | None = None
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGTERM, frame)
        monkeypatch.setattr(os, "getpid", lambda: 7)
        monkeypatch.setattr(os, "kill", lambda *what: sent.append(what))
        handler(signal.SIGTERM, frame)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert sent == [(7, signal.SIGTERM)]


def test_signals_are_left_alone_outside_of_the_main_thread() -> None:
    before, within = signal.getsignal(signal.SIGTERM), list[object]()

    def look() -> None:
        with interrupts.terminated_like_interrupted():
            within.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert within == [before]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_standard_output_that_is_full_is_one_line() -> None:
    for command in (["rules"], ["data", "verify", "nosuch"]):
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            done = subprocess.run(
                [sys.executable, "-m", "harness", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == output.EXIT_USAGE
        assert len(done.stderr.splitlines()) == 1


def test_standard_output_that_is_closed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["rules"]) == output.EXIT_USAGE
    assert capsys.readouterr().err == "harness rules: standard output is closed\n"


def test_a_corpus_below_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["data", "demo", "--output", str(tmp_path / "file" / "sub")]) == output.EXIT_USAGE
    assert capsys.readouterr().err.endswith(f"cannot be made ({tmp_path / 'file'} is not a folder)\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", ""],
        ["corpus", ""],
        *(
            [*command, *flags]
            for command in (["corpus", "clone"], ["calibrate", "labels", "--repo", "clone"])
            for flags in (
                ["--workers", "0"],
                ["--workers", "-1"],
                ["--workers", "9" * 5_000],
                ["--seconds", "0"],
                ["--seconds", "nan"],
                ["--seconds", "inf"],
                ["--seconds", "x"],
            )
        ),
        ["corpus", "clone", "--sample", "-1"],
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == output.EXIT_USAGE
    assert "expected" in capsys.readouterr().err


def test_a_previous_record_that_is_a_pipe_is_not_waited_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert cli.main(["audit", str(folder), "--previous", str(tmp_path / "pipe")]) == output.EXIT_USAGE
    assert "pipe: no regular file" in capsys.readouterr().err
