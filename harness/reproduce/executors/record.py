"""The record of a job: its lines, when each came, and the last of them."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import IO, Final

from harness.reproduce.executors.base import Job, Watcher
from harness.reproduce.executors.lines import LineSplitter

TIME_BYTES: Final = 8  # a line costs its time stamp too, so that empty lines cannot fill the disk
TAIL_LINES: Final = 400


class Record:
    """Takes a job's output, writes log and times, and hands lines on as they come."""

    def __init__(self, job: Job, files: tuple[IO[str], IO[str]], watcher: Watcher, clock: Callable[[], float]) -> None:
        """Write into two open files; `clock` gives seconds, monotonic."""
        self._log, self._times = files
        self._caps = job.caps
        self._watcher = watcher
        self._clock = clock
        self._start = clock()
        self._splitter = LineSplitter(job.caps.line_bytes)
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.total_bytes = 0

    @property
    def flooded(self) -> str:
        """Why the output is too much, or ""."""
        if self.total_bytes <= self._caps.output_bytes:
            return ""
        return f"printed more than {self._caps.output_bytes:,} bytes"

    def begin(self) -> None:
        """The job starts now: seconds count from here."""
        self._start = self._clock()

    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def feed(self, data: bytes) -> None:
        """Take a piece of output; an empty one is its end."""
        lines = self._splitter.feed(data) if data else self._splitter.close()
        self.total_bytes += len(data) + TIME_BYTES * len(lines)
        self._hand_on(lines)

    def close(self) -> None:
        """No more comes."""
        self._hand_on(self._splitter.close())

    def _hand_on(self, lines: list[str]) -> None:
        seconds = self.seconds()
        for line in lines:
            self._log.write(line + "\n")
            self._times.write(f"{seconds:.3f}\n")
            self.tail.append(line)
            self._watcher.line(seconds, line)
        if lines:
            self._log.flush()


@contextlib.contextmanager
def recorded(job: Job, watcher: Watcher, clock: Callable[[], float]) -> Iterator[Record]:
    """Open the files of a job's record.

    Raises:
        OSError: they cannot be opened.
    """
    with (
        job.log.open("w", encoding="utf-8", newline="\n") as log,
        job.times.open("w", encoding="ascii", newline="\n") as times,
    ):
        yield Record(job, (log, times), watcher, clock)
