"""What an executor is: one job in, one ending out, every line of output handed to a watcher as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds on what a job may use up.

    Attributes:
        output_bytes: everything it may print; more ends it.
        line_bytes: what is kept of one line; the rest of a longer one is dropped.
        file_bytes: size of any single file that it writes.
        memory_bytes: resident memory of all its processes together, or None for no limit.
    """

    output_bytes: int = 64 * 2**20
    line_bytes: int = 64 * 2**10
    file_bytes: int = 16 * 2**30
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One command to run.

    Attributes:
        command: program and arguments, never through a shell.
        directory: working directory.
        environment: the whole environment; nothing else is inherited.
        log: where its output goes, one line for each line.
        times: seconds since the start for each line of `log`.
        caps: bounds.
        data: the folder with the view of the data that it was given, beside `directory`; None: it gets no data.
    """

    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    log: Path
    times: Path
    caps: Caps = field(default_factory=Caps)
    data: Path | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended.

    Attributes:
        exit_code: as the shell counts, negative for a signal.
        killed: why we ended it, or "".
        overdue: True when the watcher asked for that, False when a cap was passed.
        seconds: from start to end, by our clock.
        peak_memory_bytes: largest resident memory of the whole process tree that was seen; of a job that ends
            between two looks only that of the harness itself, from which it was started.
        survivors: processes that were still alive when the command itself had ended, and that we ended.
        tail: the last lines of output.
    """

    exit_code: int
    killed: str
    overdue: bool
    seconds: float
    peak_memory_bytes: int
    survivors: int
    tail: tuple[str, ...]


class Watcher(Protocol):
    """Follows one job while it runs."""

    def line(self, seconds: float, text: str) -> None:
        """A line came, so many seconds after the start."""
        ...

    def overdue(self, seconds: float) -> str:
        """Asked several times a second: why the job must end now, or ""."""
        ...


class Executor(Protocol):
    """A way to run jobs."""

    @property
    def isolation(self) -> str:
        """The isolation level in force, for the report."""
        ...

    def execute(self, job: Job, watcher: Watcher) -> Ending:
        """Run a job to its end; no process of it is alive afterwards."""
        ...
