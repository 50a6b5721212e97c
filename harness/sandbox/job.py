"""What is asked of a sandbox and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from harness.model import HarnessError
from harness.sandbox.levels import Level

SCRATCH: Final = "/scratch"
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a file system of the sandbox's own
CHANNEL_VARIABLE: Final = "PROBE_CHANNEL_FD"
MIB: Final = 1 << 20
# Why a job ended: by itself, by a signal, over a limit, or never started.
ENDS: Final = ("exit", "signal", "wall", "cpu", "memory", "disk", "output", "processes", "refused")
RESERVED: Final = (
    "/proc",
    "/dev",
    "/sys",
    "/.harness",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
)


@dataclass(frozen=True, slots=True)
class View:
    """A file or folder that the program may read.

    Attributes:
        source: where it lies; symlinks inside it are not followed out of it.
        target: the absolute path at which the program asks for it (see `Places` for levels without namespaces). It
            lies in the scratch, or beside other views; below one of them only where that has such a folder or file.
    """

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may use in all, over all its processes.

    Attributes:
        memory_bytes: resident memory without file pages.
        processes: at one time.
        disk_bytes: in the scratch.
        file_bytes: of one file.
        cpu_s: processor time.
        wall_s: time.
        output_bytes: standard output and error together.
        channel_bytes: through the channel.
        files: files and folders in the scratch.
        look_s: how often processes and memory are looked at; a job that is trusted to run long costs less with more.
    """

    memory_bytes: int
    processes: int
    disk_bytes: int
    file_bytes: int
    cpu_s: float
    wall_s: float
    output_bytes: int
    channel_bytes: int = 256 * MIB
    files: int = 20_000
    look_s: float = 0.02


@dataclass(frozen=True, slots=True)
class Job:
    """One command.

    Attributes:
        argv: the command; paths below a view's target, or below the scratch, are put right for the level in force.
        views: all that it may read.
        workdir: where it starts; made when it lies in the scratch.
        environment: all of it; HOME and TMPDIR become the scratch.
        limits: what it may use.
        keep: patterns of paths below the scratch that are brought out when it ends; `*` crosses folders too.
        channel: whether it gets a pipe of its own for events; the number is in `PROBE_CHANNEL_FD`.
        hidden: folders inside of views, this interpreter's packages among them, that it may not read after all; at L2
            it still sees their names.
    """

    argv: tuple[str, ...]
    views: tuple[View, ...]
    workdir: str
    environment: Mapping[str, str]
    limits: Limits
    keep: tuple[str, ...] = ()
    channel: bool = False
    hidden: tuple[Path, ...] = ()


class Listener(Protocol):
    """Follows a job while it runs."""

    def begin(self) -> None:
        """The program starts now."""
        ...

    def hear(self, data: bytes) -> None:
        """It printed something."""
        ...

    def overdue(self) -> str:
        """Asked several times a second: why the job must end now, or ""."""
        ...


class Partner(Protocol):
    """Talks with the program: hears what comes through its channel, and answers on its standard input."""

    def begin(self) -> bytes:
        """What the program is told first."""
        ...

    def hear(self, data: bytes) -> bytes:
        """Take what it said; returns the answer, or b"".

        Raises:
            HarnessError: it makes no sense; the program is ended.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        level: the level that was in force.
        backend: what made it.
        ended: one of `ENDS`.
        reason: the same in words.
        returncode: the exit status, negative for a signal; None when there was none.
        seconds: from start to end.
        cpu_s: processor time of all processes.
        peak_memory_bytes: the most that they held at one time.
        output: the file with what was printed, as it was (control characters too).
        channel: the file with what came through the channel, if it was asked for and nobody listened.
        kept: the folder with the files brought out.
        skipped: what was not brought out and why.
        survivors: processes that were still alive when the command had ended, and were killed.
    """

    level: Level
    backend: str
    ended: str
    reason: str
    returncode: int | None
    seconds: float
    cpu_s: float
    peak_memory_bytes: int
    output: Path
    channel: Path | None
    kept: Path
    skipped: tuple[str, ...] = ()
    survivors: int = 0


def check(job: Job, into: Path) -> None:
    """Refuse a job that could not be run as it is meant.

    Raises:
        HarnessError: a target is not a plain absolute path, a source is missing, or the run directory lies in a view.
    """
    if not job.argv:
        raise HarnessError("the job has no command")
    for path in (job.workdir, *(view.target for view in job.views)):
        _check_path(path)
    real = into.resolve()
    for view in job.views:
        if not view.source.exists():
            raise HarnessError(f"{view.source}: not there, and asked for as {view.target}")
        if real.is_relative_to(view.source.resolve()):
            raise HarnessError(f"{into}: the run directory lies inside {view.source}, which the job reads")


def _check_path(path: str) -> None:
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or str(pure) != path or path == "/" or "\0" in path:
        raise HarnessError(f"{path!r}: not a plain absolute path")
    if any(path == name or path.startswith(f"{name}/") for name in RESERVED):
        raise HarnessError(f"{path!r}: the sandbox keeps this path for itself")
