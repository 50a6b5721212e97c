"""The limits that need looking: memory, processes, processor time, disk and time, over all processes of a job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.sandbox import disk
from harness.sandbox.job import SCRATCH, SHARED_MEMORY, Limits
from harness.sandbox.tree import Tree

NONE: Final = ("", "")
# Looking costs: a look is followed by so many times its own length without one.
LOOK_COST_RATIO: Final = 15.0
DISK_SECONDS: Final = 0.25


@dataclass(slots=True)
class Watch:
    """Looks at a running job.

    Attributes:
        limits: what it may use.
        tree: its processes.
        scratch: its scratch, where that is a folder of this machine.
        peak_memory_bytes: the most memory seen.
    """

    limits: Limits
    tree: Tree
    scratch: Path | None
    peak_memory_bytes: int = 0
    _next_look: float = 0.0
    _next_disk: float = 0.0

    def over(self, seconds: float) -> tuple[str, str]:
        """The limit that has been passed and the same in words; two empty texts when none has."""
        if seconds > self.limits.wall_s:
            return "wall", f"ran for more than {self.limits.wall_s:g} s"
        start = time.monotonic()
        if start >= self._next_look:
            found = self._look()
            self._next_look = _next(start, self.limits.look_s)
            if found[0]:
                return found
        start = time.monotonic()
        if start >= self._next_disk:
            found = self._disk()
            self._next_disk = _next(start, DISK_SECONDS)
            return found
        return NONE

    def _look(self) -> tuple[str, str]:
        self.tree.look()
        if len(self.tree.guests) > self.limits.processes:
            return "processes", f"more than {self.limits.processes} processes at one time"
        if self.tree.cpu_s > self.limits.cpu_s:
            return "cpu", f"used more than {self.limits.cpu_s:g} s of processor time"
        memory = self.tree.memory_bytes(self.limits.memory_bytes)
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        if memory > self.limits.memory_bytes:
            return "memory", f"used {memory:,} bytes of memory, the limit is {self.limits.memory_bytes:,}"
        return NONE

    def _disk(self) -> tuple[str, str]:
        used, entries, full = self._usage()
        if full or used > self.limits.disk_bytes:
            return "disk", f"filled the scratch of {self.limits.disk_bytes:,} bytes"
        if entries > self.limits.files:
            return "disk", f"made more than {self.limits.files:,} files, or folders that cannot be counted"
        return NONE

    def _usage(self) -> tuple[int, int, bool]:
        """Bytes, entries, and whether the file system is full."""
        if self.scratch is None:
            used, free, entries = disk.mounted(self.tree.guests, SCRATCH) or (0, 1, 0)
            _, _, shared = disk.mounted(self.tree.guests, SHARED_MEMORY) or (0, 1, 0)
            return used, entries + shared, free == 0
        used, entries = disk.used(self.scratch, self.limits.files)
        return used + disk.unlinked(self.tree.alive, self.scratch.stat().st_dev), entries, False


def _next(start: float, least: float) -> float:
    end = time.monotonic()
    return end + max(least, LOOK_COST_RATIO * (end - start))
