"""Bring files out of the scratch: the stage sends them in a plain stream. Standard library only."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import stat
from collections.abc import Iterator
from typing import Final

from harness.sandbox.spec import Spec

PIECE: Final = 1 << 16
DEPTH: Final = 32


def send(spec: Spec, out: int) -> None:
    """Write every wanted file to a pipe: a line of JSON with name and size, then its bytes.

    Files that were not sent get a line with the reason. Links are never followed.
    """
    left_bytes, left_files = spec.keep_bytes, spec.keep_files
    for name in _names(spec.scratch):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in spec.keep):
            continue
        size, why = _look(os.path.join(spec.scratch, name))  # noqa: PTH118 - names may be no text
        if not why and (size > left_bytes or left_files <= 0):
            why = "too much"
        if why:
            _line(out, {"skipped": name, "why": why})
            continue
        _send_file(os.path.join(spec.scratch, name), name, size, out)  # noqa: PTH118
        left_bytes, left_files = left_bytes - size, left_files - 1


def _names(scratch: str) -> Iterator[str]:
    """Paths below the scratch, folder by folder."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with contextlib.suppress(OSError):
            entries = sorted(os.scandir(os.path.join(scratch, below)), key=lambda entry: entry.name)  # noqa: PTH118
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if not entry.is_dir(follow_symlinks=False):
                    yield name
                elif name.count("/") < DEPTH:
                    waiting.append(name)


def _look(path: str) -> tuple[int, str]:
    """Size, and why the file is not brought out, or ""."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return 0, str(error.strerror)
    if stat.S_ISREG(found.st_mode):
        return found.st_size, ""
    return 0, "a link" if stat.S_ISLNK(found.st_mode) else "not a file"


def _send_file(path: str, name: str, size: int, out: int) -> None:
    """One file, exactly as many bytes as announced."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _line(out, {"skipped": name, "why": str(error.strerror)})
        return
    _line(out, {"name": name, "size": size})
    left = size
    while left > 0:
        piece = os.read(handle, min(PIECE, left)) or b"\0" * min(PIECE, left)
        _all(out, piece)
        left -= len(piece)
    os.close(handle)


def _line(out: int, value: dict[str, str | int]) -> None:
    _all(out, json.dumps(value).encode("ascii") + b"\n")


def _all(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
