"""What a backend is: it turns a job into a command that starts the stage inside of its walls."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from harness.sandbox.job import CHANNEL_VARIABLE, MIB, Job
from harness.sandbox.levels import Level
from harness.sandbox.places import Places, below_scratch, of_this_machine
from harness.sandbox.spec import Spec
from harness.sandbox.tree import snapshot

PACKAGE: Final = Path(__file__).parent
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
# Threads count as tasks for the system: so many for each process, and some.
THREADS: Final = 64
OPEN_FILES: Final = 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the stage for one job.

    Attributes:
        prefix: what stands before the interpreter.
        spec: what the stage is told.
        package: the folder from which the stage imports this package, as it sees it.
        scratch: the scratch as a folder of this machine, where it is one.
        files: open files that the prefix names by number.
    """

    prefix: tuple[str, ...]
    spec: Spec
    package: str
    scratch: Path | None = None
    files: tuple[IO[bytes], ...] = ()


class Backend(Protocol):
    """One way to keep a program apart."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def level(self) -> Level:
        """The level that it makes where its canaries hold."""
        ...

    def missing(self) -> str:
        """Why it cannot be used here, or ""."""
        ...

    def places(self, job: Job, into: Path) -> Places:
        """Where things lie as the program sees them."""
        ...

    def launch(self, job: Job, into: Path) -> Launch:
        """Prepare the start of one job; `into` is its run directory."""
        ...


@dataclass(frozen=True, slots=True)
class Canary:
    """One live test of the walls, from inside.

    Attributes:
        name: what was tried.
        held: whether the walls held.
        detail: what happened.
    """

    name: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A backend that has been tried.

    Attributes:
        backend: what runs jobs.
        level: the level in force, by what its canaries showed.
        canaries: their results.
        passed_over: stronger backends and why they are not used.
    """

    backend: Backend
    level: Level
    canaries: tuple[Canary, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = field(default=())


def specify(job: Job, places: Places, *, calls: str) -> Spec:
    """The stage's orders, but for the parts that are the backend's own."""
    workdir = places.translate(job.workdir)
    return Spec(
        argv=[places.translate(one) for one in job.argv],
        environment=_environment(job.environment, places),
        workdir=workdir,
        scratch=places.scratch,
        folders=[places.scratch, *([workdir] if below_scratch(job.workdir) else [])],
        rlimits=_rlimits(job),
        calls=calls,
        keep=list(job.keep),
        keep_bytes=job.limits.disk_bytes,
        keep_files=job.limits.files,
    )


def tasks(job: Job) -> int:
    """How many tasks (threads) a job may have at one time, where the system counts those."""
    return job.limits.processes * THREADS


def shared_places(job: Job, into: Path) -> Places:
    """The places of backends without namespaces: the scratch is a folder of the run directory."""
    return of_this_machine(job.views, into.absolute() / "scratch")


def shared_launch(job: Job, into: Path, *, calls: str, landlock: tuple[list[str], list[str]] | None) -> Launch:
    """The start of a job without namespaces.

    Args:
        job: the job.
        into: its run directory.
        calls: which system calls are refused.
        landlock: the paths that stay readable and writable, or None for no walls around files.
    """
    places = shared_places(job, into)
    scratch = Path(places.scratch)
    scratch.mkdir(mode=0o700)
    given = specify(job, places, calls=calls)
    for view in job.views:
        if below_scratch(view.target):
            given.links[places.translate(view.target)] = str(view.source.absolute())
    if landlock is None:
        return Launch((), given, str(PACKAGE.parents[1]), scratch)
    readable, writable = landlock
    own = Spec(
        **{name: getattr(given, name) for name in given.__slots__ if name not in {"landlock", "readable", "writable"}},
        landlock=True,
        readable=readable,
        writable=[*writable, places.scratch],
    )
    return Launch((), own, str(PACKAGE.parents[1]), scratch)


def _environment(given: Mapping[str, str], places: Places) -> dict[str, str]:
    """The job's environment with our own names in it; the channel's number is added by the runner."""
    found = {"PATH": PATH, "USER": "probe", "LOGNAME": "probe"}
    found.update((name, places.translate(value)) for name, value in given.items() if name != CHANNEL_VARIABLE)
    return found | {"HOME": places.scratch, "TMPDIR": places.scratch}


def _rlimits(job: Job) -> dict[str, tuple[int, int]]:
    """Limits for each single process: coarse nets below the watcher, which counts all of them together."""
    limits = job.limits
    seconds = max(1, int(limits.cpu_s) + 1)
    data = 2 * limits.memory_bytes + 1024 * MIB
    found = {
        "CORE": (0, 0),
        "CPU": (seconds, seconds + 2),
        "DATA": (data, data),
        "FSIZE": (limits.file_bytes, limits.file_bytes),
        "MSGQUEUE": (0, 0),
        "NICE": (0, 0),
        "NOFILE": (OPEN_FILES, OPEN_FILES),
        "RTPRIO": (0, 0),
    }
    if hasattr(os, "getuid") and os.getuid() != 0 and sys.platform.startswith("linux"):
        # The system counts every task of the user, so what runs already comes on top.
        most = tasks(job) + len(snapshot()) * THREADS
        found["NPROC"] = (most, most)
    return found
