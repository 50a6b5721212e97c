"""Events as JSON lines over a pipe of the parent's, never over standard output, where a script may print anything."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

CHANNEL_VARIABLE = "PROBE_CHANNEL_FD"
TEXT_LIMIT = 2_000


class Channel:
    """Writes events in order; without a pipe they are dropped."""

    def __init__(self, descriptor: int | None, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.clock = clock
        # Stand in every event, such as the name of the copy of the process that writes it.
        self.marks: dict[str, Any] = {}
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._count = 0
        self._seen: set[tuple[str, str]] = set()

    def emit(self, kind: str, **fields: Any) -> None:
        """Write one event: its number, the virtual time, its kind and its fields."""
        with self._lock:
            event = {"i": self._count, "t": round(self.clock(), 6), "kind": kind, **self.marks, **fields}
            self._count += 1
            if self._descriptor is None:
                return
            # A number that is not finite leaves a line that the parent counts as damaged; the script goes on.
            line = json.dumps(event, default=_text) + "\n"
            self._write(line.encode())

    def once(self, kind: str, name: str, **fields: Any) -> None:
        """Write an event unless one of this kind and name was written before."""
        with self._lock:
            if (kind, name) in self._seen:
                return
            self._seen.add((kind, name))
            self.emit(kind, name=name, **fields)

    def close(self) -> None:
        """Drop what is written from now on."""
        self._descriptor = None

    def _write(self, data: bytes) -> None:
        while data and self._descriptor is not None:
            try:
                data = data[os.write(self._descriptor, data) :]
            except OSError:
                # The parent stopped listening; the script goes on.
                self._descriptor = None


def _text(value: Any) -> str:
    return str(value)[:TEXT_LIMIT]


_channel = Channel(None)


def channel() -> Channel:
    """The channel of this process."""
    return _channel


def open_channel(clock: Callable[[], float]) -> Channel:
    """Take the pipe from the environment, where the script does not find it any more."""
    global _channel  # noqa: PLW0603 - one pipe per process
    number = os.environ.pop(CHANNEL_VARIABLE, "")
    descriptor = int(number) if number.isdigit() else None
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
    _channel = Channel(descriptor, clock)
    return _channel


def replaced(name: str, how: str, *, exact: bool = True) -> None:
    """Report once that something was replaced.

    Args:
        name: what the script calls.
        how: what it got instead.
        exact: whether the numbers are those of the original, up to rounding.
    """
    _channel.once("shim", name, how=how, exact=exact)


class RefusedError(NotImplementedError):
    """The script asks for something that has no equivalent here; the run proves nothing about it."""


def refuse(name: str, why: str) -> RefusedError:
    """Report a refusal, and return the error to raise."""
    _channel.once("refusal", name, why=why)
    return RefusedError(f"{name}: {why}")
