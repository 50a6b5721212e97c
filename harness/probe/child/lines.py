"""Which lines of the submission's own files run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any

Watch = Callable[[FrameType, str, Any], Any]


class Lines:
    """Notes each line of the submission's files as it runs.

    Args:
        own: whether a code object's file is the submission's.
    """

    def __init__(self, own: Callable[[str], bool]) -> None:
        self._own = own
        self._seen: dict[str, set[int]] = {}
        # The code is held so that no other gets its identity.
        self._watches: dict[int, tuple[CodeType, Watch | None]] = {}
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

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        # By identity: to hash a function's code takes longer than all else here.
        known = self._watches.get(id(code))
        if known is None:
            known = self._watches[id(code)] = code, self._watch(code)
        watch = known[1]
        return None if watch is None else watch(frame, event, arg)

    def _watch(self, code: CodeType) -> Watch | None:
        """Notes the lines of one function, until it has seen them all; None where the function is not watched."""
        if not self._own(code.co_filename):
            return None
        seen = self._seen.setdefault(code.co_filename, set())
        left = {line for _, _, line in code.co_lines() if line is not None} - seen

        def line(frame: FrameType, event: str, arg: Any) -> Any:
            seen.add(frame.f_lineno)
            left.discard(frame.f_lineno)
            if left:
                return line
            frame.f_trace = None
            return None

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
