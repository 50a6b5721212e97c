"""L2: files closed by Landlock, network, signals and the rest by a filter of system calls; needs no privilege."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
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
        around = Around(tuple(path.resolve() for path in job.hidden))
        for view in views:
            around.open(view.source.absolute())
        launch = shared_launch(job, into, calls="shared", landlock=([*around.readable, *READABLE], list(WRITABLE)))
        return replace(launch, spec=replace(launch.spec, listable=around.listable))


@dataclass(slots=True)
class Around:
    """Opens paths around folders that stay closed: piece by piece there, since nothing can be closed again.

    Attributes:
        hidden: real paths of folders that stay closed.
        readable: paths that are opened whole.
        listable: folders above the closed ones.
    """

    hidden: tuple[Path, ...]
    readable: list[str] = field(default_factory=list)
    listable: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        """Open a path but for the hidden ones."""
        real = path.resolve()
        if any(real.is_relative_to(closed) for closed in self.hidden):
            return
        if not any(closed.is_relative_to(real) for closed in self.hidden):
            self.readable.append(str(path))
            return
        self.listable.append(str(path))
        for child in sorted(path.iterdir()):
            self.open(child)
