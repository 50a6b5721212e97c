"""Tasks in processes of their own: answers, crashes and hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.workers import each


def answer(task: str) -> str:
    if task == "crash":
        os._exit(7)
    if task == "hang":
        time.sleep(60)
    return task.upper()


def test_crashes_and_hangs_are_told_and_end_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # A fresh process imports this module by name; the console script of pytest does not put the checkout on the path.
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    tasks = ["a", "crash", "hang", "b", "c"]
    started = time.monotonic()
    ends = {done.task: done for done in each(answer, tasks, workers=2, seconds=4.0)}
    assert time.monotonic() - started < 30
    assert {task: done.result for task, done in ends.items()} == {
        "a": "A",
        "b": "B",
        "c": "C",
        "crash": None,
        "hang": None,
    }
    assert "status 7" in ends["crash"].failure
    assert ends["hang"].failure == "killed after 4 s"
    assert ends["a"].failure == ""
    peak = ends["a"].peak_bytes
    assert peak is None or peak > 1_000_000


def test_no_tasks_are_no_ends() -> None:
    assert list(each(answer, [], workers=2, seconds=1.0)) == []


def interrupted(task: str) -> str:
    raise KeyboardInterrupt(task)


def test_an_interruption_is_the_parents_to_tell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    [done] = each(interrupted, ["a"], workers=1, seconds=60.0)
    assert done.result is None
    assert "no answer" in done.failure
    assert "Traceback" not in capfd.readouterr().err


def linger(place: str) -> str:
    Path(place).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(120)
    return place


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    place, root = tmp_path / "pid", Path(__file__).parent.parent
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from harness.workers import each\nfrom tests.test_workers import linger\n"
        f"list(each(linger, [{str(place)!r}], workers=1, seconds=120.0))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    end = time.monotonic() + 60
    while not (place.exists() and place.read_text(encoding="utf-8")) and time.monotonic() < end:
        time.sleep(0.05)
    worker = int(place.read_text(encoding="utf-8"))
    parent.kill()
    parent.wait()
    while _lives(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _lives(worker)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
