"""Files that a command writes where the user says: checked before the work begins, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from harness.model import HarnessError


def check(paths: Iterable[Path], made: Path | None = None) -> None:
    """Refuse places where no file can be written, so that no work is lost at its end.

    Args:
        paths: where files will be written.
        made: a directory that the command itself makes before it writes them.

    Raises:
        HarnessError: one is a directory, lies in none or in one that refuses files, or is named twice.
    """
    seen: set[Path] = set()
    for path in paths:
        if _written_into(path):
            if not os.access(path, os.W_OK):
                raise HarnessError(f"{path}: cannot be written (Permission denied)")
            continue
        target = _target(path)
        if target in seen:
            raise HarnessError(f"{path}: named for two files")
        seen.add(target)
        if made is None or not target.is_relative_to(made.resolve()):
            _check_parent(path, target.parent)


def write(path: Path, text: str) -> None:
    """Write a file whole: to a temporary name beside it, then renamed; into a pipe or character device as it is.

    Raises:
        HarnessError: the folder does not exist or cannot be written, or a directory or device is in the way.
    """
    try:
        if _written_into(path):
            with path.open("w", encoding="utf-8") as file:
                file.write(text)
        else:
            _replace(_target(path), text)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written ({error.strerror})") from error


def _replace(target: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _written_into(path: Path) -> bool:
    """Whether a path is, or links to, a pipe or a character device, which renaming a file over it would destroy.

    Raises:
        HarnessError: it is something that holds no text: a directory, a socket or a disk.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        # Not there yet, or out of reach: what is wrong with it shows where it is made.
        return False
    if stat.S_ISDIR(mode):
        raise HarnessError(f"{path}: a directory, not a file")
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return True
    if not stat.S_ISREG(mode):
        raise HarnessError(f"{path}: no regular file, pipe or character device")
    return False


def _target(path: Path) -> Path:
    """The file itself where a path is a link: the link stays.

    Raises:
        HarnessError: links lead in a circle.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise HarnessError(f"{path}: cannot be written (it links to itself)") from error


def _check_parent(path: Path, parent: Path) -> None:
    if not parent.is_dir():
        raise HarnessError(f"{path}: cannot be written ({parent} is no directory)")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise HarnessError(f"{path}: cannot be written (Permission denied)")
