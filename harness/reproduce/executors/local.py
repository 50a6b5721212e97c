"""Run a job as a subprocess of this machine: isolation level L1.

L1 means resource limits, a process group and a clean environment. It protects from accidents and from
processes that outlive their run, not from malice: the script runs as the same user with the same files and
network.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.reproduce.executors.base import Ending, Job, Watcher
from harness.reproduce.executors.record import Record, recorded
from harness.reproduce.executors.tree import ProcessTree, subreaper

ISOLATION: Final = "L1 (not isolated)"
LAUNCHER: Final = Path(__file__).with_name("launch.py")
POLL_SECONDS: Final = 0.05
DRAIN_SECONDS: Final = 1.0
READ_BYTES: Final = 65_536


class _Output:
    """Reads the job's pipe without blocking."""

    def __init__(self, stream: IO[bytes], record: Record) -> None:
        self._stream = stream
        self._record = record
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)
        self.ended = False

    def pump(self) -> bool:
        """Wait a moment for output and take at most one piece of it; returns whether there was any."""
        if self.ended:
            time.sleep(POLL_SECONDS)
            return False
        if not self._selector.select(timeout=POLL_SECONDS):
            return False
        data = os.read(self._stream.fileno(), READ_BYTES)
        self.ended = not data
        self._record.feed(data)
        return bool(data)

    def finish(self, clock: Callable[[], float]) -> None:
        """Take what is still in the pipe (a surviving child may hold it open for ever: not longer than a moment)."""
        deadline = clock() + DRAIN_SECONDS
        while not self.ended and not self._record.flooded and clock() < deadline and self.pump():
            pass
        self._record.close()
        self._selector.close()


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Plain subprocesses.

    Attributes:
        clock: seconds, monotonic.
        isolation: the level, for the report.
    """

    clock: Callable[[], float] = time.monotonic
    isolation: str = ISOLATION

    def execute(self, job: Job, watcher: Watcher) -> Ending:
        """Run a job to its end; no process of it is alive afterwards.

        Raises:
            RuntimeError: a process of it could not be ended.
            OSError: the launcher or the log files could not be opened.
        """
        with subreaper(), recorded(job, watcher, self.clock) as record:
            tree = ProcessTree(self.clock)
            record.begin()
            process = _start(job)
            tree.start(process.pid)
            try:
                return self._follow(process, record, _Run(job, watcher, tree, record.seconds))
            finally:
                # Also on Ctrl-C: nothing of the job outlives this call.
                tree.kill()
                if process.stdout is not None:
                    process.stdout.close()
                process.wait()

    def _follow(self, process: subprocess.Popen[bytes], record: Record, run: _Run) -> Ending:
        if process.stdout is None:
            raise RuntimeError("the job was started without a pipe")
        output = _Output(process.stdout, record)
        too_much, overdue, usage_bytes = "", "", None
        while usage_bytes is None and not too_much and not overdue:
            output.pump()
            run.tree.sample()
            too_much = record.flooded or _too_much_memory(run)
            overdue = run.watcher.overdue(run.clock())
            usage_bytes = _collect(process)
        seconds = run.clock()
        if usage_bytes is None:
            run.tree.kill()
        usage_bytes = usage_bytes or _collect_blocking(process)
        output.finish(run.clock)
        survivors = run.tree.kill()
        return Ending(
            exit_code=process.returncode,
            killed=too_much or overdue,
            overdue=bool(overdue) and not too_much,
            seconds=seconds,
            peak_memory_bytes=max(run.tree.peak_memory_bytes, usage_bytes),
            survivors=survivors,
            tail=tuple(record.tail),
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """One job while it runs; `clock` counts from its start."""

    job: Job
    watcher: Watcher
    tree: ProcessTree
    clock: Callable[[], float]


def _start(job: Job) -> subprocess.Popen[bytes]:
    launcher = (sys.executable, "-I", "-S", str(LAUNCHER), str(job.caps.file_bytes))
    return subprocess.Popen(
        [*launcher, *job.command],
        cwd=job.directory,
        env=dict(job.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        bufsize=0,
    )


def _too_much_memory(run: _Run) -> str:
    limit = run.job.caps.memory_bytes
    if limit is None or run.tree.memory_bytes <= limit:
        return ""
    return f"used {run.tree.memory_bytes:,} bytes of memory, the limit is {limit:,}"


def _collect(process: subprocess.Popen[bytes], options: int = os.WNOHANG) -> int | None:
    """Peak resident bytes of the command once it has ended (its exit code is then set), None before."""
    pid, status, usage = os.wait4(process.pid, options)
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit


def _collect_blocking(process: subprocess.Popen[bytes]) -> int:
    return _collect(process, 0) or 0
