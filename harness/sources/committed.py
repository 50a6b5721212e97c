"""A record folder as a commit holds it, written into a directory of our own so that it can be read like any other.

Nothing is checked out: the repository's work tree, index, filters and hooks have no part in it. Files are written
with names that cannot leave the directory, links last and never followed, and no more bytes than a submission has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, Final

from harness.model import HarnessError, Located, Location
from harness.sources.folder import DEPTH_LIMIT, ENTRIES_LIMIT, LOG_LIMIT_BYTES, shown
from harness.sources.gitprogram import Repository

# A larger file is not read by anybody here: its name and its size are enough.
FILE_LIMIT_BYTES: Final = LOG_LIMIT_BYTES
FOLDER_LIMIT_BYTES: Final = 1024 * 1024 * 1024
LINK_LIMIT_BYTES: Final = 4_096
CHUNK_BYTES: Final = 1024 * 1024
LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
# One more than the walk of a folder reads, so that the walk itself says that there are too many.
_FILES_LIMIT: Final = ENTRIES_LIMIT + 1
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tree: its path below the folder, mode, object and, for a file or link, its size."""

    path: str
    mode: str
    object_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """A folder written to disk.

    Attributes:
        folder: where it stands.
        refused: entries that were not written, each with the reason.
        pointers: files whose content is kept outside the repository (Git LFS).
    """

    folder: Path
    refused: tuple[Located[str], ...]
    pointers: tuple[str, ...]


def entries(repository: Repository, commit: str, folder: str) -> tuple[Entry, ...]:
    """The entries below a folder at a commit; at most as many as a folder may have.

    Raises:
        HarnessError: the commit has no such folder.
    """
    try:
        # In two steps, because a name may end in what git takes for an operator.
        tree_id = _object_id(repository, f"{_object_id(repository, f'{commit}:{folder}')}^{{tree}}")
    except HarnessError:
        raise HarnessError(f"commit {shown(commit)[:12]} has no folder {shown(folder)}") from None
    data = repository.output("ls-tree", "-r", "-l", "-z", "--full-tree", tree_id)
    return tuple(_entry(line) for line in data.split(b"\0")[:-1])[:_FILES_LIMIT]


def extract(repository: Repository, commit: str, folder: str, where: Path) -> Extracted:
    """Write a folder of a commit below a directory, under the path that it has in the repository.

    A file beyond `FILE_LIMIT_BYTES` gets its name and its size, but no content.

    Raises:
        HarnessError: the commit has no such folder, its name is unsafe, or it is larger than any submission.
    """
    problem = next(filter(None, map(_unsafe, folder.split("/"))), "")
    if problem:
        raise HarnessError(f"{shown(folder)}: {problem}")
    root = where.joinpath(*folder.split("/"))
    root.mkdir(parents=True)
    writer = _Writer(root)
    files, links = writer.sort(entries(repository, commit, folder))
    if sum(entry.size_bytes for entry in files) > FOLDER_LIMIT_BYTES:
        raise HarnessError(f"{shown(folder)}: larger than the {FOLDER_LIMIT_BYTES:,} bytes that are read")
    with _contents(repository, [*files, *links]) as contents:
        for entry in files:
            writer.file(entry, contents)
        # Last, so that no file is ever written through one.
        for entry in links:
            writer.link(entry, contents)
    return Extracted(root, tuple(writer.refused), tuple(writer.pointers))


def _object_id(repository: Repository, name: str) -> str:
    data = repository.output("rev-parse", "--verify", "--quiet", "--end-of-options", name)
    return data.decode("ascii", "replace").split()[-1]


def _entry(line: bytes) -> Entry:
    described, _, path = line.partition(b"\t")
    mode, _, object_id, size = described.decode("ascii", "replace").split()
    return Entry(os.fsdecode(path), mode, object_id, int(size) if size.isdecimal() else 0)


def _unsafe(name: str) -> str:
    """Why a part of a path may not be used as a name on disk, or ""."""
    if name in {"", ".", ".."} or "\0" in name or "\\" in name or (os.name == "nt" and ":" in name):
        return "a name that would leave its folder"
    # Some file systems ignore case and invisible characters, and Windows knows a second name.
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf").casefold().rstrip(". ")
    if visible == ".git" or visible.startswith("git~"):
        return "a name that git keeps for itself"
    return ""


@contextlib.contextmanager
def _contents(repository: Repository, wanted: Sequence[Entry]) -> Iterator[IO[bytes]]:
    """The contents of entries, one after the other, as `git cat-file --batch` prints them."""
    asked = "".join(f"{entry.object_id}\n" for entry in wanted if _is_read(entry))
    with repository.stream("cat-file", "--batch", "--buffer", given=asked.encode()) as stdout:
        yield stdout
        if stdout.read(1):
            raise HarnessError(f"{repository.git_dir}: git says more than it was asked")


def _is_read(entry: Entry) -> bool:
    return entry.size_bytes <= FILE_LIMIT_BYTES


def _next(contents: IO[bytes]) -> int | None:
    """The size of the next object; None when the repository does not hold it."""
    header = contents.readline(1024).split()
    if len(header) == 3 and header[2].isdigit():
        return int(header[2])
    if header and header[-1] == b"missing":
        return None
    raise HarnessError("git ended before it had said everything")


def _chunks(contents: IO[bytes], size_bytes: int) -> Iterator[bytes]:
    """The content of one object, and nothing after it."""
    left = size_bytes
    while left:
        data = contents.read(min(left, CHUNK_BYTES))
        if not data:
            raise HarnessError("git ended before it had said everything")
        left -= len(data)
        yield data
    contents.read(1)


@dataclass
class _Writer:
    """One folder being written."""

    root: Path
    refused: list[Located[str]] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)

    def sort(self, found: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Files and links that can be written; the others are refused."""
        files: list[Entry] = []
        links: list[Entry] = []
        linked = {entry.path for entry in found if entry.mode == "120000"}
        for entry in found:
            parents = accumulate(entry.path.split("/")[:-1], "{}/{}".format)
            reason = "stands below a link" if not linked.isdisjoint(parents) else self._reason(entry)
            if reason:
                self._refuse(entry, reason)
            else:
                (links if entry.mode == "120000" else files).append(entry)
        return files, links

    def _reason(self, entry: Entry) -> str:
        parts = entry.path.split("/")
        if len(parts) > DEPTH_LIMIT + 1:
            return f"deeper than {DEPTH_LIMIT} folders"
        if entry.mode == "160000":
            return "a submodule: its files are not in this repository"
        if entry.mode == "120000" and entry.size_bytes > LINK_LIMIT_BYTES:
            return "a link longer than any path"
        return next(filter(None, map(_unsafe, parts)), "")

    def file(self, entry: Entry, contents: IO[bytes]) -> None:
        """Write one file; one that is too large to be read gets its size only."""
        size_bytes = _next(contents) if _is_read(entry) else entry.size_bytes
        if size_bytes is None:
            self._refuse(entry, "its content is not in this clone")
            return
        chunks = _chunks(contents, size_bytes) if _is_read(entry) else iter(())
        first = next(chunks, b"")
        if first.startswith(LFS_POINTER):
            self.pointers.append(entry.path)
        try:
            with self._opened(entry) as file:
                file.write(first)
                shutil.copyfileobj(_Joined(chunks), file)
                if not _is_read(entry):
                    file.truncate(size_bytes)
        except OSError as error:
            self._refuse(entry, f"cannot be written ({error.strerror})")
            for _ in chunks:
                pass

    def link(self, entry: Entry, contents: IO[bytes]) -> None:
        """Make one link, which points into the folder as it did, or visibly out of it."""
        size_bytes = _next(contents)
        if size_bytes is None:
            self._refuse(entry, "its content is not in this clone")
            return
        target = os.fsdecode(b"".join(_chunks(contents, size_bytes)))
        place = self._place(entry)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self._target(place, target))
        except (OSError, ValueError):
            self._refuse(entry, "a link that cannot be made")

    def _target(self, place: Path, target: str) -> str | Path:
        """The target; for one that may be outside, the directory above the folder, so that no other file is named.

        The parents of a link are no links themselves, so steps up are safe, but only before any step down.
        """
        down = target.lstrip("./").split("/")
        inside = os.path.normpath(place.parent / target)
        kept = ".." not in down and Path(inside).is_relative_to(self.root)
        return target if kept else self.root.parent

    def _place(self, entry: Entry) -> Path:
        return self.root.joinpath(*entry.path.split("/"))

    def _opened(self, entry: Entry) -> IO[bytes]:
        place = self._place(entry)
        place.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(place, _NEW_FILE, 0o644), "wb")

    def _refuse(self, entry: Entry, reason: str) -> None:
        self.refused.append(Located(reason, Location(shown(entry.path))))


@dataclass
class _Joined:
    """Chunks as a file that can be copied."""

    chunks: Iterator[bytes]

    def read(self, _: int = -1) -> bytes:
        return next(self.chunks, b"")
