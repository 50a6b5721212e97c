"""Tasks in processes of their own: answers, crashes and hangs."""

from __future__ import annotations

import os
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
