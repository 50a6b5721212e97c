"""Run a job in the sandbox: it sees its own copy of the code, the data that it was given, and nothing else.

The code lies in a view that cannot be written; the program starts in a copy of it, in the scratch. The data lies
beside, at the same place relative to it as outside, so that settings are the same at every level. What the program
leaves in its working directory is brought out when it ends.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.model import HarnessError
from harness.reproduce.executors.base import Ending, Job, Watcher
from harness.reproduce.executors.record import Record, recorded
from harness.sandbox import runner
from harness.sandbox.backend import Sandbox
from harness.sandbox.job import SCRATCH, Limits, View
from harness.sandbox.job import Job as Sandboxed

SUBMISSION: Final = "/submission"
WORK: Final = "work"
# The first thing in the sandbox: the code into the working directory, then the command in its place.
STARTER: Final = (
    "import os, shutil, sys; "
    "shutil.copytree(sys.argv[1], os.getcwd(), dirs_exist_ok=True, copy_function=shutil.copyfile); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
# What a whole training with its data loaders may use; time is the watcher's.
PROCESSES: Final = 512
FILES: Final = 100_000
LONGEST_SECONDS: Final = 10 * 86_400.0
DEFAULT_MEMORY_BYTES: Final = 1 << 44
# Looking at the processes takes time from the training.
LOOK_SECONDS: Final = 0.25
KILLED: Final = -9


@dataclass(frozen=True, slots=True)
class SandboxExecutor:
    """Jobs behind walls.

    Attributes:
        sandbox: what `establish` gave.
        clock: seconds, monotonic.
    """

    sandbox: Sandbox
    clock: Callable[[], float] = time.monotonic

    @property
    def isolation(self) -> str:
        """The level in force."""
        return f"{self.sandbox.level} ({self.sandbox.backend.name})"

    def execute(self, job: Job, watcher: Watcher) -> Ending:
        """Run a job to its end; no process of it is alive afterwards.

        Raises:
            HarnessError: the sandbox could not be started.
            RuntimeError: a process of it could not be ended.
            OSError: the log files could not be opened.
        """
        into = job.directory.with_name(f"{job.directory.name}.sandbox")
        shutil.rmtree(into, ignore_errors=True)
        try:
            with recorded(job, watcher, self.clock) as record:
                listener = _Listener(record, watcher)
                outcome = runner.run(_sandboxed(job), into, sandbox=self.sandbox, listener=listener)
                record.close()
            if outcome.ended == "refused":
                raise HarnessError(f"the sandbox could not be started: {outcome.reason}")
            _bring_out(outcome.kept / WORK, job.directory)
        finally:
            shutil.rmtree(into, ignore_errors=True)
        stopped = outcome.ended not in {"exit", "signal"}
        return Ending(
            exit_code=KILLED if outcome.returncode is None else outcome.returncode,
            killed=outcome.reason if stopped else "",
            overdue=outcome.ended == "wall" and not record.flooded,
            seconds=listener.seconds,
            peak_memory_bytes=outcome.peak_memory_bytes,
            survivors=outcome.survivors,
            tail=tuple(record.tail),
        )


@dataclass(slots=True)
class _Listener:
    """Between the sandbox and the watcher of a job."""

    record: Record
    watcher: Watcher
    seconds: float = 0.0

    def begin(self) -> None:
        """The program starts now."""
        self.record.begin()

    def hear(self, data: bytes) -> None:
        """It printed something."""
        self.record.feed(data)
        self.seconds = self.record.seconds()

    def overdue(self) -> str:
        """Why it must end now, or ""."""
        self.seconds = self.record.seconds()
        return self.record.flooded or self.watcher.overdue(self.seconds)


def _sandboxed(job: Job) -> Sandboxed:
    """The same job for the sandbox."""
    caps = job.caps
    limits = Limits(
        memory_bytes=caps.memory_bytes or DEFAULT_MEMORY_BYTES,
        processes=PROCESSES,
        disk_bytes=2 * caps.file_bytes,
        file_bytes=caps.file_bytes,
        cpu_s=LONGEST_SECONDS * (os.cpu_count() or 1),
        wall_s=LONGEST_SECONDS,
        output_bytes=2 * caps.output_bytes,
        files=FILES,
        look_s=LOOK_SECONDS,
    )
    command = (job.command[0], "-I", "-S", "-c", STARTER, SUBMISSION, *job.command)
    views = (View(job.directory.absolute(), SUBMISSION), *_data(job))
    return Sandboxed(command, views, f"{SCRATCH}/{WORK}", job.environment, limits, keep=(f"{WORK}/*",))


def _data(job: Job) -> list[View]:
    """Datasets and tokenizers where the job expects them; a folder of links is one view for each of its files."""
    if job.data is None:
        return []
    beside = f"{SCRATCH}/{job.data.name}"
    found = sorted(job.data.glob("*/*"))
    folders = [path for path in found if path.is_dir() and not path.is_symlink()]
    found = [path for path in found if path not in folders] + [
        path for each in folders for path in sorted(each.iterdir())
    ]
    return [View(path.resolve(), f"{beside}/{path.relative_to(job.data).as_posix()}") for path in found]


def _bring_out(kept: Path, directory: Path) -> None:
    """Move what the program left into its directory; the code that it was given stays as it was."""
    for path in sorted(kept.rglob("*")):
        target = directory / path.relative_to(kept)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
