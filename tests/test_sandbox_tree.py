"""The process table: who belongs to a job, what they use, and their end; also where there is no /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.sandbox import tree
from harness.sandbox.job import Limits
from harness.sandbox.tree import Process, Tree, snapshot
from harness.sandbox.watch import Watch

SLEEPING = "import time; time.sleep(60)"
NESTED = f"import subprocess, sys; subprocess.Popen([sys.executable, '-ISc', {SLEEPING!r}]); {SLEEPING}"


def started() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-ISc", NESTED], start_new_session=True)


def grown(found: Tree, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(found.alive) < count and time.monotonic() < deadline:
        found.look()
        time.sleep(0.01)


def test_tree_finds_descendants_and_ends_them() -> None:
    with started() as process:
        found = Tree(process.pid)
        grown(found, 2)
        assert len(found.alive) == 2
        assert found.memory_bytes(1 << 40) > 1 << 20
        assert 0 < found.memory_bytes(0) <= found.memory_bytes(1 << 40)
        assert not found.kill()
        process.wait()
    found.look()
    assert not found.alive


def test_children_are_remembered_when_their_parent_has_gone() -> None:
    with started() as process:
        found = Tree(process.pid)
        grown(found, 2)
        process.kill()
        process.wait()
        found.look()
        assert len(found.alive) == 1
        assert not found.kill()


def test_number_of_somebody_else_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [
        {7: Process(7, 1, 100.0, 1.0, 1.0, alive=True), 8: Process(8, 7, 101.0, 2.0, 2.0, alive=True)},
        {7: Process(7, 1, 999.0, 50.0, 50.0, alive=True), 8: Process(8, 1, 998.0, 50.0, 50.0, alive=True)},
    ]
    monkeypatch.setattr(tree, "snapshot", lambda: tables[0])
    found = Tree(7)
    found.look()
    first = (found.alive, found.cpu_s)
    monkeypatch.setattr(tree, "snapshot", lambda: tables[1])
    found.look()
    assert (first, found.alive, found.cpu_s) == (((7, 8), 3.0), (), 3.0)


def test_names_cannot_forge_a_line() -> None:
    line = b"42 (evil) S 1 (x) R 77 0 0 0) S 5 6 7 0 -1 0 0 0 0 0 100 200 300 400 20 0 1 0 12345 0"
    found = tree._parse(42, line)
    assert (found.pid, found.parent, found.started, found.alive) == (42, 5, 12345.0, True)
    assert found.own_s == pytest.approx(300 / tree.TICKS)
    assert found.cpu_s == pytest.approx(1000 / tree.TICKS)


def test_table_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with started() as process:
        monkeypatch.setattr(tree, "PROC", tmp_path / "none")
        found = Tree(process.pid)
        grown(found, 2)
        assert len(found.alive) == 2
        assert found.memory_bytes(1 << 40) > 1 << 20
        assert found.memory_bytes(0) > 1 << 20
        assert not found.kill()
    assert tree._portable_bytes(2**30) == 0


def test_own_process_is_in_the_table() -> None:
    table = snapshot()
    assert table[os.getpid()].parent == os.getppid()
    assert table[os.getpid()].cpu_s >= 0


LIMITS = Limits(1 << 40, 100, 1 << 40, 1 << 40, 1e9, 1e9, 1)


@pytest.mark.parametrize(
    ("limits", "ended"),
    [
        (Limits(1000, 100, 1 << 40, 1, 1e9, 1e9, 1), "memory"),
        (Limits(1 << 40, 0, 1 << 40, 1, 1e9, 1e9, 1), "processes"),
        (Limits(1 << 40, 100, 1 << 40, 1, -1.0, 1e9, 1), "cpu"),
        (Limits(1 << 40, 100, 1000, 1, 1e9, 1e9, 1), "disk"),
        (Limits(1 << 40, 100, 1 << 40, 1, 1e9, 1e9, 1, files=0), "disk"),
        (Limits(1 << 40, 100, 1 << 40, 1, 1e9, 1.0, 1), "wall"),
        (LIMITS, ""),
    ],
)
def test_watch_names_the_limit(tmp_path: Path, limits: Limits, ended: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    watch = Watch(limits, Tree(os.getpid()), tmp_path)
    found, reason = watch.over(2.0)
    assert found == ended
    assert bool(reason) == bool(ended)
    assert Watch(limits, Tree(os.getpid()), tmp_path).over(0.5)[0] == (ended if ended != "wall" else "")


def test_looking_is_paid_for() -> None:
    watch = Watch(LIMITS, Tree(os.getpid()), None)
    assert watch.over(0.0) == ("", "")
    watch.limits = Limits(1, 0, 1, 1, 0.0, 1e9, 1)
    assert watch.over(0.0) == ("", "")  # too early for another look
