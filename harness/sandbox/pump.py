"""Bounded files for what comes out of a sandbox: output, channel, answers of the stage, files brought out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from harness.model import HarnessError
from harness.sandbox.job import Partner

READ_BYTES: Final = 1 << 16
LONGEST_LINE: Final = 1 << 16
LONGEST_NAME: Final = 200
DEEPEST: Final = 32


def fresh(path: Path) -> IO[bytes]:
    """A new file, made by us: nothing that lies there already, and no link, is written through."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    return os.fdopen(handle, "wb", buffering=0)


class Sink(Protocol):
    """Takes what comes out."""

    @property
    def full(self) -> bool:
        """Whether there was more than it takes."""
        ...

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        ...


@dataclass(slots=True)
class Dialogue:
    """What comes out goes to a partner, and its answers go back in; nothing is kept.

    Attributes:
        partner: who talks.
        answers: the number of the program's standard input, once it has one; writing to it does not block.
        left: how many bytes it still takes.
        full: whether there were more.
    """

    partner: Partner
    left: int
    answers: int = -1
    full: bool = False

    def begin(self, answers: int) -> None:
        """Say the first word."""
        os.set_blocking(answers, False)
        self.answers = answers
        self._say(self.partner.begin())

    def feed(self, data: bytes) -> None:
        """Hear, and answer."""
        self.left -= len(data)
        self.full = self.left < 0
        self._say(self.partner.hear(data))

    def _say(self, data: bytes) -> None:
        if not data:
            return
        with contextlib.suppress(BrokenPipeError):  # it has ended: the runner finds out why
            try:
                told = os.write(self.answers, data)
            except BlockingIOError:
                told = 0
            if told < len(data):
                raise HarnessError("the program does not read what it is told")


@dataclass(slots=True)
class Bounded:
    """A file that takes so many bytes and no more.

    Attributes:
        file: where they go.
        left: how many it still takes.
        hear: is told of all that comes.
        full: whether there were more.
    """

    file: IO[bytes]
    left: int
    hear: Callable[[bytes], None] | None = None
    full: bool = False

    def feed(self, data: bytes) -> None:
        """Write what fits."""
        self.full = self.full or len(data) > self.left
        self.file.write(data[: self.left])
        self.left -= min(self.left, len(data))
        if self.hear is not None:
            self.hear(data)

    def close(self) -> None:
        """No more."""
        self.file.close()


@dataclass(slots=True)
class Answers:
    """Reads the stage's answers: `ready`, a report, then files. It may have been taken over: nothing is believed.

    Attributes:
        folder: where files brought out go.
        bytes_left: how much of them is taken.
        files_left: how many.
        ready: the stage has started.
        report: its report.
        skipped: files not brought out, with the reason.
    """

    folder: Path
    bytes_left: int
    files_left: int
    ready: bool = False
    report: dict[str, object] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _buffer: bytes = b""
    _file: IO[bytes] | None = None
    _path: Path | None = None
    _wanted: int = 0
    _broken: bool = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._buffer += data
        while self._buffer and not self._broken:
            if self._wanted:
                self._content()
            elif not self._line():
                return
        if self._broken:
            self._buffer = b""

    def close(self) -> None:
        """No more; a file that was cut off is removed."""
        if self._file is not None and self._path is not None and self._wanted:
            self.skipped.append(f"{printable(self._path.name)}: cut off")
            self._path.unlink(missing_ok=True)
        self._shut()

    def _content(self) -> None:
        piece = self._buffer[: self._wanted]
        self._buffer = self._buffer[len(piece) :]
        self._wanted -= len(piece)
        if self._file is not None:
            self._file.write(piece)
        if not self._wanted:
            self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self) -> bool:
        """Take one line if it is whole; returns whether there was one."""
        line, end, rest = self._buffer.partition(b"\n")
        if not end:
            self._broken = len(line) > LONGEST_LINE
            return False
        self._buffer = rest
        if not self.ready:
            self.ready = line == b"ready"
            return True
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self._broken = True
        elif not self.report:
            self.report = value
        else:
            self._announced(value)
        return True

    def _announced(self, value: dict[str, object]) -> None:
        name, size = value.get("name", value.get("skipped")), value.get("size", 0)
        if not isinstance(name, str) or not isinstance(size, int) or size < 0 or self.files_left <= 0:
            self._broken = True
            return
        self.files_left -= 1
        if "skipped" in value:
            self.skipped.append(f"{printable(name)}: {printable(str(value.get('why')))}")
            return
        self._wanted = size
        self.bytes_left -= size
        if self.bytes_left < 0:
            self._broken = True
        elif not harmless(name):
            self.skipped.append(f"{printable(name)}: a name that is not taken")
        else:
            self._open(name)

    def _open(self, name: str) -> None:
        self._path = path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = fresh(path)
        except OSError as error:
            self.skipped.append(f"{printable(name)}: {error.strerror}")
            return
        if not self._wanted:
            self._shut()


def harmless(name: str) -> bool:
    """Whether a name is a plain relative path of printable text.

    Example:
        >>> harmless("logs/run.txt"), harmless("../x"), harmless("a" + chr(27))
        (True, False, False)
    """
    parts = name.split("/")
    plain = all(part not in {"", ".", ".."} and len(part.encode("utf-8", "replace")) <= LONGEST_NAME for part in parts)
    return plain and len(parts) <= DEEPEST and name.isprintable() and "\\" not in name


def printable(text: str) -> str:
    """The text with everything that a terminal might obey written out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "replace").decode() for one in text)[:500]
