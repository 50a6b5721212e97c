"""What a corpus holds: sizes, hashes and counts of every file, as `manifest.json` beside the data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.model import HarnessError

SCHEMA = "corpus/1"
MANIFEST_NAME = "manifest.json"
MANIFEST_CAP_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Counts:
    """What is inside one shard."""

    tokens: int
    documents: int
    bytes_by_table: int
    bytes_by_decoding: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file; `counts` for shards only."""

    size_bytes: int
    sha256: str
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class TextEntry:
    """The text before tokenization.

    Attributes:
        unique_documents: long enough and different from each other.
        documents: of those, what near-duplicate removal kept.
        size_bytes: their UTF-8 bytes.
        sha256: hash over all of them in the order of the shards, each ended by a newline.
        validation_services: held-out services.
    """

    unique_documents: int
    documents: int
    size_bytes: int
    sha256: str
    validation_services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A corpus.

    Attributes:
        name: which corpus (`demo`).
        inputs: versions of the packages that it was made from and with.
        recipe: the numbers that it was made by.
        text: the text before tokenization.
        files: every file but the manifest, by POSIX path.
    """

    name: str
    inputs: Mapping[str, str]
    recipe: Mapping[str, Any]
    text: TextEntry
    files: Mapping[str, FileEntry]

    def to_json(self) -> str:
        """The manifest file: sorted, so that the same corpus gives the same bytes."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> Manifest:
        """Read a manifest; `path` names it in errors.

        Raises:
            HarnessError: not a manifest of this schema.
        """
        try:
            raw = json.loads(text)
            if raw["schema"] != SCHEMA:
                raise HarnessError(f"{path}#/schema: found {raw['schema']!r}, expected {SCHEMA!r}")
            return cls(
                name=str(raw["name"]),
                inputs={str(key): str(value) for key, value in raw["inputs"].items()},
                recipe=dict(raw["recipe"]),
                text=TextEntry(**{**raw["text"], "validation_services": tuple(raw["text"]["validation_services"])}),
                files={str(name): _file_entry(entry) for name, entry in raw["files"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise HarnessError(f"{path}: not a manifest of schema {SCHEMA}: {error!r}") from error


def _file_entry(raw: Mapping[str, Any]) -> FileEntry:
    counts = raw["counts"]
    return FileEntry(int(raw["size_bytes"]), str(raw["sha256"]), None if counts is None else Counts(**counts))


def read_text(path: Path) -> str:
    """A manifest's text, bounded.

    Raises:
        HarnessError: too large or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MANIFEST_CAP_BYTES + 1)
        if len(raw) > MANIFEST_CAP_BYTES:
            raise HarnessError(f"{path}: larger than {MANIFEST_CAP_BYTES:,} bytes")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path}: cannot be read: {error}") from error


def sha256_file(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def differences(directory: Path, expected: Mapping[str, FileEntry]) -> list[str]:
    """One sentence for each expected file that is missing or is not what it should be."""
    return [sentence for name, entry in expected.items() if (sentence := _difference(directory / name, entry))]


def _difference(path: Path, entry: FileEntry) -> str:
    if not path.is_file():
        return f"{path}: missing"
    found = path.stat().st_size
    if found != entry.size_bytes:
        return f"{path}: found {found:,} bytes, expected {entry.size_bytes:,}"
    digest = sha256_file(path)
    return "" if digest == entry.sha256 else f"{path}: found sha256 {digest}, expected {entry.sha256}"
