"""L2: files closed by Landlock, network, signals and the rest by a filter of system calls; needs no privilege."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.sandbox import ruleset, seccomp
from harness.sandbox.backend import Launch, shared_launch, shared_places
from harness.sandbox.job import Job
from harness.sandbox.levels import Level
from harness.sandbox.places import Places
from harness.sandbox.runtime import python_runtime_views

READABLE: Final = ("/dev/urandom", "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/proc/filesystems")
WRITABLE: Final = ("/dev/null",)


@dataclass(frozen=True, slots=True)
class Landlock:
    """The machine's own paths and processes, with the doors shut."""

    name: str = "landlock"
    level: Level = Level.L2

    def missing(self) -> str:
        """It needs Landlock of the third version (Linux 6.2) and a filter for this kind of machine."""
        found = ruleset.version()
        if found < ruleset.LOWEST_ABI:
            have = f"version {found}" if found else "none"
            return f"needs Landlock version {ruleset.LOWEST_ABI} (Linux 6.2), here is {have}"
        machine = platform.machine()
        return "" if machine in seccomp.MACHINES else f"no system call filter for {machine}"

    def places(self, job: Job, into: Path) -> Places:
        """The machine's own paths."""
        return shared_places(job, into)

    def launch(self, job: Job, into: Path) -> Launch:
        """The stage, which shuts the doors before it starts the program."""
        views = (*python_runtime_views(), *job.views)
        readable = [str(view.source.absolute()) for view in views]
        return shared_launch(job, into, calls="shared", landlock=([*readable, *READABLE], list(WRITABLE)))
