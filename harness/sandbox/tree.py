"""All processes below one: how many, their memory and processor time, by the process table.

On systems without /proc the table is psutil's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

KILL_SECONDS: Final = 10.0
ROUND_SECONDS: Final = 0.01
PAGE_TABLES: Final = "VmPTE:"
PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table.

    Attributes:
        pid: its number.
        parent: its parent's.
        started: when; with the number it names a process for good.
        own_s: processor time.
        cpu_s: the same with that of its ended and collected children.
        alive: it is no zombie.
    """

    pid: int
    parent: int
    started: float
    own_s: float
    cpu_s: float
    alive: bool


@dataclass(slots=True)
class Tree:
    """The processes below a root; those seen once are remembered when their parent has gone.

    Attributes:
        root: the first process.
        members: those of the last look.
        cpu_s: processor time so far; never falls.
        staff: numbers of our own processes among them: the stage, and what stands around it.
    """

    root: int
    members: tuple[Process, ...] = ()
    cpu_s: float = 0.0
    staff: frozenset[int] = frozenset()
    _root_started: float | None = None
    _seen: dict[tuple[int, float], float] = field(default_factory=dict)

    def look(self) -> None:
        """Read the process table again."""
        table = snapshot()
        by_parent: dict[int, list[Process]] = {}
        for process in table.values():
            by_parent.setdefault(process.parent, []).append(process)
        known = [one.pid for one in self.members if _same(table.get(one.pid), one)]
        found: dict[int, Process] = {}
        waiting = [*known, *self._root(table)]
        while waiting:
            pid = waiting.pop()
            if pid in found or pid not in table:
                continue
            found[pid] = table[pid]
            waiting += [child.pid for child in by_parent.get(pid, ())]
        self.members = tuple(found.values())
        self._seen.update(((one.pid, one.started), one.own_s) for one in self.members)
        # Children that nobody collects are in the second sum only, very short ones in the first.
        self.cpu_s = max(self.cpu_s, sum(one.cpu_s for one in self.members), sum(self._seen.values()))

    def _root(self, table: dict[int, Process]) -> list[int]:
        """The root, unless its number belongs to somebody else by now."""
        here = table.get(self.root)
        if here is None:
            return []
        if self._root_started is None:
            self._root_started = here.started
        return [here.pid] if here.started == self._root_started else []

    @property
    def guests(self) -> tuple[int, ...]:
        """Numbers of the program's own processes that still run."""
        return tuple(pid for pid in self.alive if pid not in self.staff)

    @property
    def alive(self) -> tuple[int, ...]:
        """Numbers of the processes that still run."""
        return tuple(process.pid for process in self.members if process.alive)

    def memory_bytes(self, enough: int) -> int:
        """Memory that is the tree's own, without pages of files.

        Pages that children share with their parent count for each, unless that comes to more than `enough`: only
        then is the exact number worth its price.
        """
        rough = sum(map(_own_bytes, self.alive))
        return rough if rough <= enough else sum(map(_proportional_bytes, self.alive))

    def kill(self) -> tuple[int, ...]:
        """End all of them; returns those that could not be ended."""
        deadline = time.monotonic() + KILL_SECONDS
        while True:
            self.look()
            if not self.alive or time.monotonic() > deadline:
                return self.alive
            send(self.alive, signal.SIGSTOP)
            send(self.alive, signal.SIGKILL)
            time.sleep(ROUND_SECONDS)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal processes, those that are gone or not ours left out."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def first_to_die(pids: Iterable[int]) -> None:
    """When memory runs out, the system takes these and their children before any other."""
    for pid in pids:
        with contextlib.suppress(OSError):
            (PROC / str(pid) / "oom_score_adj").write_text("1000", encoding="ascii")


def snapshot() -> dict[int, Process]:
    """The process table by number."""
    if not (PROC / "self/stat").exists():
        return _portable()
    found = {}
    for name in os.listdir(PROC):  # noqa: PTH208 - many times a second
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(name)] = _parse(int(name), (PROC / name / "stat").read_bytes())
    return found


def _parse(pid: int, line: bytes) -> Process:
    """A line of /proc/PID/stat; the name in parentheses may hold anything."""
    fields = line.rpartition(b")")[2].split()
    user, system, *children = (int(number) / TICKS for number in fields[11:15])
    own = user + system
    return Process(pid, int(fields[1]), float(fields[19]), own, own + sum(children), fields[0] not in {b"Z", b"X"})


def _portable() -> dict[int, Process]:
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu = times.user + times.system
            alive = process.status() != psutil.STATUS_ZOMBIE
            found[process.pid] = Process(process.pid, process.ppid() or 0, process.create_time(), cpu, cpu, alive)
    return found


def _same(now: Process | None, before: Process) -> bool:
    return now is not None and now.started == before.started


def _own_bytes(pid: int) -> int:
    """Resident pages that belong to no file, by the quick count; shared memory and page tables count too."""
    if not PROC.is_dir():
        return _portable_bytes(pid)
    return _sum(pid, "status", ("RssAnon:", "RssShmem:", "VmSwap:", PAGE_TABLES))


def _proportional_bytes(pid: int) -> int:
    """The same with each page divided among those who share it."""
    exact = _sum(pid, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))
    return exact + _sum(pid, "status", (PAGE_TABLES,)) if exact else _own_bytes(pid)


def _sum(pid: int, name: str, wanted: tuple[str, ...]) -> int:
    """Bytes in the lines of a file of the process table that start so; 0 when it cannot be read."""
    try:
        text = (PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(wanted))


def _portable_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
