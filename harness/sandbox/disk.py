"""How much a scratch holds, and its end. Nothing here follows links; folders may be as deep as they like."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

DEEPEST: Final = 256
BLOCK: Final = 512
DELETED: Final = re.compile(r" \(deleted\)$")


def used(scratch: Path, most_files: int) -> tuple[int, int]:
    """Bytes on disk and entries below a folder; counting ends soon after `most_files`.

    A folder that cannot be counted (too deep, not readable) counts as too many.
    """
    total, entries = 0, 0
    waiting = [(str(scratch), 0)]
    while waiting and entries <= most_files:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    entries += 1
                    total += _blocks(entry)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except (FileNotFoundError, NotADirectoryError):
            continue  # gone between two looks
        except OSError:
            return total, most_files + 1
        if depth > DEEPEST:
            return total, most_files + 1
    return total, entries


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * BLOCK
    except FileNotFoundError:
        return 0  # gone between two looks


def unlinked(pids: Iterable[int], device: int) -> int:
    """Bytes of files on a device that have no name any more and are still open."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - many times a second
                path = f"/proc/{pid}/fd/{name}"
                with contextlib.suppress(OSError):
                    if DELETED.search(os.readlink(path)):  # noqa: PTH115
                        state = os.stat(path)  # noqa: PTH116
                        if stat.S_ISREG(state.st_mode) and state.st_dev == device:
                            found[state.st_ino] = state.st_blocks * BLOCK
    return sum(found.values())


def mounted(pids: Iterable[int], path: str) -> tuple[int, int, int] | None:
    """Used bytes, free bytes and entries of the file system that a process sees at a path; None if nobody can say."""
    for pid in pids:
        with contextlib.suppress(OSError):
            state = os.statvfs(f"/proc/{pid}/root{path}")
            return (
                (state.f_blocks - state.f_bfree) * state.f_frsize,
                state.f_bfree * state.f_frsize,
                state.f_files - state.f_ffree,
            )
    return None


def remove(folder: Path) -> bool:
    """Remove a folder whose content is hostile: deep, without permissions, full of links; returns whether it is gone.

    Folders inside are first moved up, so that no path ever grows long.
    """
    if not folder.is_dir() or folder.is_symlink():
        return True
    waiting = [folder]
    try:
        while waiting:
            current = waiting.pop()
            current.chmod(0o700)
            with os.scandir(current) as found:
                waiting += [one for one in [_remove_entry(entry, folder) for entry in list(found)] if one is not None]
            if current != folder:
                current.rmdir()
        folder.rmdir()
    except OSError:
        return False
    return True


def _remove_entry(entry: os.DirEntry[str], top: Path) -> Path | None:
    """Remove a file; move a folder to the top, and say where it is."""
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.path)  # noqa: PTH108
        return None
    # Moving a folder changes its entry "..", for which it must be writable.
    os.chmod(entry.path, 0o700)  # noqa: PTH101
    moved = top / f".removed-{secrets.token_hex(8)}"
    os.rename(entry.path, moved)  # noqa: PTH104
    return moved
