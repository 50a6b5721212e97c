"""A small store of computed values, by content, in the user's cache directory.

It only saves time: whatever is wrong with it (no home, no permission, a damaged entry), the value is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

NAME = "parameter-golf-harness"
ENTRIES_LIMIT = 2_000
ENTRY_LIMIT_BYTES = 4_096


class Cache:
    """Small JSON objects under keys of bytes; safe for several processes at once."""

    def __init__(self, directory: Path | None) -> None:
        """Use a directory, made on the first write; None keeps nothing."""
        self._directory = directory

    def get(self, key: bytes) -> dict[str, int] | None:
        """The value of a key; None when it is not there or damaged."""
        if self._directory is None:
            return None
        try:
            with self._path(self._directory, key).open("rb") as file:
                entry = json.loads(file.read(ENTRY_LIMIT_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        value = entry.get("value") if isinstance(entry, dict) and entry.get("key") == _digest(key) else None
        if not isinstance(value, dict) or not all(type(number) is int for number in value.values()):
            return None
        return value

    def put(self, key: bytes, value: dict[str, int]) -> None:
        """Remember a value; failing to is no error."""
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._make_room(self._directory)
            # Written under another name first: a reader sees all of an entry or nothing.
            handle, name = tempfile.mkstemp(dir=self._directory, suffix=".new")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"key": _digest(key), "value": value}, file)
            Path(name).replace(self._path(self._directory, key))

    @staticmethod
    def _path(directory: Path, key: bytes) -> Path:
        return directory / f"{_digest(key)}.json"

    @staticmethod
    def _make_room(directory: Path) -> None:
        """Drop the older half when the store is full; leftovers of interrupted writes go with it."""
        entries = [entry for entry in os.scandir(directory) if entry.name.endswith((".json", ".new"))]
        if len(entries) < ENTRIES_LIMIT:
            return
        with_times: list[tuple[float, str]] = []
        for entry in entries:
            with contextlib.suppress(OSError):
                with_times.append((entry.stat().st_mtime, entry.path))
        for _, path in sorted(with_times)[: len(with_times) // 2]:
            with contextlib.suppress(OSError):
                Path(path).unlink()


def user_cache(kind: str) -> Cache:
    """The user's store for one kind of value; one that keeps nothing where there is no home."""
    return Cache(user_directory(kind))


def user_directory(kind: str) -> Path | None:
    """The folder of the user's cache for one kind of value; None where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:
            return None
    return Path(base) / NAME / kind


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
