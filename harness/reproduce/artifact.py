"""Find what a run left: its compressed model and its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# By convention of the competition, most telling first. Raw checkpoints (.pt, .pth) are never the artifact.
SUFFIXES: Final = (".ptz", ".zst", ".br", ".xz", ".lzma", ".lz", ".lrz", ".z", ".gz", ".bin", ".pkl", ".npz")
READ_BYTES: Final = 1 << 20
ENTRIES_CAP: Final = 20_000


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run left; `path` is relative to the run directory."""

    path: str
    size_bytes: int
    sha256: str


def matching(directory: Path, pattern: str) -> list[Path]:
    """Regular files below a directory that a pattern names, largest first; links are left out."""
    return sorted(
        (path for path in directory.glob(pattern) if path.is_file() and not path.is_symlink()),
        key=lambda path: (-path.stat().st_size, path.name),
    )


def find(directory: Path, pattern: str, shipped: frozenset[str], logged_bytes: int | None) -> Artifact | None:
    """The compressed model in a run directory.

    Args:
        directory: the run directory.
        pattern: where submission.json says it is, or "".
        shipped: paths that were there before the run.
        logged_bytes: the model's size as the log states it: a new file of exactly that size is the one.
    """
    if pattern:
        declared = matching(directory, pattern)
        return identify(directory, declared[0]) if declared else None
    new = [path for path in _files(directory) if path.relative_to(directory).as_posix() not in shipped]
    by_size = [path for path in new if path.stat().st_size == logged_bytes]
    if by_size:
        return identify(directory, by_size[0])
    for suffix in SUFFIXES:
        fitting = [path for path in new if path.suffix.lower() == suffix]
        if fitting:
            return identify(directory, max(fitting, key=lambda path: path.stat().st_size))
    return None


def identify(directory: Path, path: Path) -> Artifact:
    """Size and hash of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
            size += len(data)
    return Artifact(path.relative_to(directory).as_posix(), size, digest.hexdigest())


def _files(directory: Path) -> Iterator[Path]:
    """Regular files below a directory, at most `ENTRIES_CAP` entries of it."""
    for count, path in enumerate(sorted(directory.rglob("*"))):
        if count >= ENTRIES_CAP:
            return
        if path.is_file() and not path.is_symlink():
            yield path
