"""Record folders below a directory: a checkout of the competition, its `records/`, a track, or any other.

Links are never followed, and a directory that holds more than any checkout does is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from harness.model import HarnessError

DIRECTORIES_LIMIT = 50_000
ENTRIES_LIMIT = 1_000_000
DEPTH_LIMIT = 12
# Where a checkout keeps its record folders; beside them it has scripts and data tools with READMEs of their own.
_SHELVES = ("records", "submissions")
_SKIPPED = frozenset({".git", ".venv", "__pycache__", "node_modules"})
_MANIFEST = re.compile(r"submission[\w.-]{0,200}\.json", re.IGNORECASE)
# Two of these three make a record folder that lacks its manifest; on a track one is enough.
_PARTS = {
    "readme": re.compile(r"readme(?:\.\w{1,10})?", re.IGNORECASE),
    "script": re.compile(r".*\.py", re.IGNORECASE | re.DOTALL),
    "log": re.compile(r".*\.log|(?=.*(?:train|seed|log|run)).*\.(?:txt|out)", re.IGNORECASE | re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a directory holds.

    Attributes:
        folders: the record folders, in order of their paths; the directory itself when it is one.
        unread: directories that could not be listed, or lie too deep, each with the reason.
    """

    folders: tuple[Path, ...]
    unread: tuple[str, ...]


def discover(root: Path) -> Discovery:
    """Find the record folders at or below a directory.

    Raises:
        HarnessError: the directory holds more than is searched.
    """
    search = _Search()
    shelves = [root / name for name in _SHELVES if (root / name).is_dir() and not (root / name).is_symlink()]
    if shelves and not search.listing(root).has_manifest:
        found = [record for shelf in shelves for record in search.records(shelf, 1)]
    else:
        found = search.records(root, 0)
    return Discovery(tuple(record.path for record in found), tuple(search.unread))


@dataclass(frozen=True, slots=True)
class _Record:
    path: Path
    has_manifest: bool


@dataclass(frozen=True, slots=True)
class _Listing:
    """One directory's own entries."""

    directories: tuple[Path, ...]
    has_manifest: bool
    parts: int


@dataclass
class _Search:
    """One search: how much was seen, and what could not be."""

    unread: list[str] = field(default_factory=list)
    directories: int = 0
    entries: int = 0

    def records(self, directory: Path, depth: int) -> list[_Record]:
        """The record folders at or below a directory; those inside a record folder belong to it."""
        listing = self.listing(directory)
        if listing.has_manifest:
            return [_Record(directory, has_manifest=True)]
        if depth >= DEPTH_LIMIT and listing.directories:
            self.unread.append(f"{directory}: deeper than {DEPTH_LIMIT} folders, not searched further")
            return []
        below = [record for inner in listing.directories for record in self.records(inner, depth + 1)]
        enough = 1 if directory.parent.name.startswith("track_") else 2
        if listing.parts >= enough and not any(record.has_manifest for record in below):
            return [_Record(directory, has_manifest=False)]
        return below

    def listing(self, directory: Path) -> _Listing:
        """List a directory; one that cannot be listed is empty, and remembered.

        Raises:
            HarnessError: the search has seen too much.
        """
        self.directories += 1
        names: list[str] = []
        inner: list[str] = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._count(directory)
                    (inner if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
        except OSError as error:
            self.unread.append(f"{directory}: cannot be listed ({error.strerror})")
        return _Listing(
            directories=tuple(directory / name for name in sorted(inner) if name not in _SKIPPED),
            has_manifest=any(_MANIFEST.fullmatch(name) for name in names),
            parts=sum(any(pattern.fullmatch(name) for name in names) for pattern in _PARTS.values()),
        )

    def _count(self, directory: Path) -> None:
        self.entries += 1
        if self.entries > ENTRIES_LIMIT or self.directories > DIRECTORIES_LIMIT:
            raise HarnessError(f"{directory}: too many files to search for record folders; name a smaller directory")
