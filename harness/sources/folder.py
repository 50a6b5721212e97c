"""A record folder on disk: which files it holds, and bounded reads of them.

Everything in the folder was written by somebody else. Links that leave it, devices, names that would disturb a
terminal, and more entries than any submission has are refused with a reason, and nothing is read without a cap.
"""

from __future__ import annotations

import codecs
import os
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.model import HarnessError, Located, Location

ENTRIES_LIMIT = 5_000
DEPTH_LIMIT = 12
TEXT_LIMIT_BYTES = 16 * 1024 * 1024
LOG_LIMIT_BYTES = 32 * 1024 * 1024
# Bytes of a text without byte-order mark that tell whether every other one is zero.
_PROBED_BYTES = 400
NAME_SHOWN_CHARACTERS = 120
PATH_SHOWN_CHARACTERS = 4_096
# Left by tools, never part of a submission.
_SKIPPED = frozenset({".git", "__pycache__", ".DS_Store"})


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One regular file: its relative POSIX path in NFC, where it really is, and its size."""

    path: str
    target: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A walked record folder.

    Attributes:
        root: the folder.
        files: every regular file by relative path, in sorted order.
        refused: entries that are not read, each with the reason.
    """

    root: Path
    files: Mapping[str, FileEntry]
    refused: tuple[Located[str], ...]

    @property
    def name(self) -> str:
        """The folder's own name, fit for output."""
        return shown(self.root.resolve().name)

    def read(self, path: str, limit_bytes: int = TEXT_LIMIT_BYTES) -> bytes:
        """The bytes of one file.

        Raises:
            HarnessError: there is no such file, it is larger than the cap, or it cannot be read.
        """
        entry = self.files.get(path)
        if entry is None:
            raise HarnessError(f"{shown(path)}: no such file in {self.name}")
        try:
            with entry.target.open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise HarnessError(f"{path}: not a regular file any more")
                data = file.read(limit_bytes + 1)
        except OSError as error:
            raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error
        if len(data) > limit_bytes:
            raise HarnessError(f"{path}: larger than the {limit_bytes:,} bytes that are read")
        return data

    def text(self, path: str, limit_bytes: int = TEXT_LIMIT_BYTES) -> str:
        """One file as text, whatever its bytes are; raises like `read`."""
        return decode(self.read(path, limit_bytes))


def decode(data: bytes) -> str:
    """Bytes as text: UTF-8 or UTF-16, with or without byte-order mark; wrong bytes become U+FFFD."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    probe = data[:_PROBED_BYTES]
    for wide, zeros in (("utf-16-le", probe[1::2]), ("utf-16-be", probe[::2])):
        if len(probe) > 1 and not any(zeros) and any(probe):
            return data.decode(wide, "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")


def shown(name: str, limit_characters: int = NAME_SHOWN_CHARACTERS) -> str:
    """A name fit for output: NFC, without control, bidirectional or unpaired characters, and short.

    Example:
        >>> shown("a\u202eb")
        'a\ufffdb'
    """
    clean = "".join("\ufffd" if _disturbs(character) else character for character in unicodedata.normalize("NFC", name))
    return clean if len(clean) <= limit_characters else clean[: limit_characters - 3] + "..."


def _disturbs(character: str) -> bool:
    # Cc control, Cf format (bidirectional marks, zero width), Cs surrogates, Zl and Zp line breaks.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def walk(root: Path) -> Folder:
    """List a record folder.

    Raises:
        HarnessError: it is no folder, or it cannot be listed.
    """
    if not root.is_dir():
        raise HarnessError(f"{root}: not a folder")
    walker = _Walker(root.resolve())
    walker.descend(root, "", 0)
    return Folder(root, dict(sorted(walker.files.items())), tuple(walker.refused))


@dataclass
class _Walker:
    """One walk: what was found and how many entries were seen."""

    real_root: Path
    files: dict[str, FileEntry] = field(default_factory=dict)
    refused: list[Located[str]] = field(default_factory=list)
    seen: int = 0

    def descend(self, directory: Path, prefix: str, depth: int) -> None:
        for entry in self._entries(directory, prefix):
            if entry.name in _SKIPPED:
                continue
            self.seen += 1
            if self.seen > ENTRIES_LIMIT:
                self._refuse(prefix or ".", f"more than {ENTRIES_LIMIT:,} entries: the rest is not read")
                return
            path = prefix + unicodedata.normalize("NFC", entry.name)
            if any(_disturbs(character) for character in entry.name):
                self._refuse(path, "the name holds control or direction characters")
            elif entry.is_dir(follow_symlinks=False) and depth < DEPTH_LIMIT:
                self.descend(Path(entry.path), path + "/", depth + 1)
            else:
                self._add(entry, path)

    def _entries(self, directory: Path, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(directory) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._refuse(prefix or ".", f"cannot be listed ({error.strerror})")
            return []

    def _add(self, entry: os.DirEntry[str], path: str) -> None:
        try:
            target = Path(entry.path).resolve()
            status = target.stat()
        except (OSError, RuntimeError):
            self._refuse(path, "a link that leads nowhere, or an entry that cannot be read")
            return
        if not target.is_relative_to(self.real_root):
            self._refuse(path, "a link that leaves the folder")
        elif stat.S_ISDIR(status.st_mode):
            self._refuse(path, "a link to a folder" if entry.is_symlink() else f"deeper than {DEPTH_LIMIT} folders")
        elif not stat.S_ISREG(status.st_mode):
            self._refuse(path, "not a regular file")
        else:
            self.files[path] = FileEntry(path, target, status.st_size)

    def _refuse(self, path: str, reason: str) -> None:
        self.refused.append(Located(reason, Location(shown(path))))
