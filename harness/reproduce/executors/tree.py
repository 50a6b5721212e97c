"""All processes of one job: their memory, and their end.

Killing a process group leaves children alive that made a session of their own. Three nets catch them: the
tree below the command; every process once seen in it, even when its parent has gone; and on Linux the orphans,
which come back to us while we are their *subreaper*.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil

PR_SET_CHILD_SUBREAPER: Final = 36
PR_GET_CHILD_SUBREAPER: Final = 37
KILL_SECONDS: Final = 10.0
ROUND_SECONDS: Final = 0.02
# Looking at every process costs: at most a fiftieth of the time goes there.
SAMPLE_SECONDS: Final = 0.25
SAMPLE_COST_RATIO: Final = 50.0


@contextlib.contextmanager
def subreaper() -> Iterator[bool]:
    """Become the parent of orphaned descendants for a while; gives False where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        yield False
        return
    library = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    library.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    enabled = library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield enabled
    finally:
        library.prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


class ProcessTree:
    """The processes that a job has started; make it before the job's first process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember which children we have already: they are not the job's."""
        self._clock = clock
        self._ours = psutil.Process()
        self._others = set(self._ours.children())
        self._seen: set[psutil.Process] = set()
        self._root: int | None = None
        self._next_sample = 0.0
        self.peak_memory_bytes = 0
        self.memory_bytes = 0

    def start(self, root: int) -> None:
        """Tell the job's first process, which leads a process group; its exit status is left for its parent."""
        self._root = root

    def sample(self) -> None:
        """Measure resident memory, if it is time again."""
        start = self._clock()
        if start < self._next_sample:
            return
        self.memory_bytes = sum(_resident_bytes(process) for process in self._members())
        self.peak_memory_bytes = max(self.peak_memory_bytes, self.memory_bytes)
        end = self._clock()
        self._next_sample = end + max(SAMPLE_SECONDS, SAMPLE_COST_RATIO * (end - start))

    def kill(self) -> int:
        """End every process of the job; returns how many were alive.

        Raises:
            RuntimeError: some would not die (held by the kernel, or of another user).
        """
        killed: set[psutil.Process] = set()
        deadline = self._clock() + KILL_SECONDS
        while True:
            alive = {process for process in self._members() if self._is_alive(process)}
            if not alive:
                return len(killed)
            if self._clock() > deadline:
                raise RuntimeError(f"processes that cannot be ended: {sorted(process.pid for process in alive)}")
            self._kill_group()
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process.kill()
            killed |= alive
            time.sleep(ROUND_SECONDS)

    def _kill_group(self) -> None:
        if self._root is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._root, signal.SIGKILL)

    def _is_alive(self, process: psutil.Process) -> bool:
        """Alive, and not a zombie; collects the zombies that came to us as orphans."""
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                return process.is_running()
        except psutil.NoSuchProcess:
            return False
        if process.pid != self._root:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        return False

    def _members(self) -> set[psutil.Process]:
        """Descendants that are not somebody else's, and all that were seen before and still run."""
        try:
            children = set(self._ours.children()) - self._others
        except psutil.Error:
            children = set()
        members = set(children)
        for process in children | self._seen:
            with contextlib.suppress(psutil.Error):
                members.update(process.children(recursive=True))
        self._seen = {process for process in self._seen | members if process.is_running()}
        return self._seen


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it ended between two looks
