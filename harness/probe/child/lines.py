"""Which lines of the submission's own files run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any


class Lines:
    """Notes each line of the submission's files as it runs.

    Args:
        own: whether a code object's file is the submission's.
    """

    def __init__(self, own: Callable[[str], bool]) -> None:
        self._own = own
        self._seen: dict[str, set[int]] = {}
        self._before: tuple[Any, Any] = (None, None)

    def install(self) -> None:
        """Watch from now on."""
        self._before = threading.gettrace(), sys.gettrace()
        threading.settrace(self._called)
        sys.settrace(self._called)

    def report(self, emit: Callable[..., None]) -> None:
        """Say which lines ran, a file in each event; nothing is watched any more."""
        threading.settrace(self._before[0])
        sys.settrace(self._before[1])
        for path, lines in self._seen.items():
            emit("lines", path=path, ranges=_ranges(lines))

    def _called(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        path = frame.f_code.co_filename
        if not self._own(path):
            return None
        seen = self._seen.setdefault(path, set())
        seen.add(frame.f_lineno)

        def line(frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
            seen.add(frame.f_lineno)
            return line

        return line


def _ranges(lines: Iterable[int]) -> list[list[int]]:
    """Lines as half-open ranges, in order."""
    found: list[list[int]] = []
    # A module begins on a line 0.
    for line in sorted(each for each in lines if each):
        if found and found[-1][1] == line:
            found[-1][1] = line + 1
        else:
            found.append([line, line + 1])
    return found
