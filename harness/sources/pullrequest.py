"""A pull request as git tells it: what changed between its base and its head, and when the commits say they were made.

Names in a repository are bytes of somebody's choice. They are kept as Python's surrogate-escaped text, compared as
such, and made fit for output only where they are shown.
"""

from __future__ import annotations

import datetime as dt
import enum
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.model import HarnessError
from harness.sources.folder import shown
from harness.sources.gitprogram import Repository

CHANGES_LIMIT: Final = 50_000
COMMITS_LIMIT: Final = 5_000
RECORD_ROOTS: Final = ("records", "submissions")
TRACK_PREFIX: Final = "track_"
_LINK_MODE: Final = "120000"
_SUBMODULE_MODE: Final = "160000"
_ABSENT_MODE: Final = "000000"
_STATUSES: Final = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "T": "retyped", "C": "added"}


class Kind(enum.StrEnum):
    """What a path of a tree is."""

    FILE = "file"
    LINK = "link"
    SUBMODULE = "submodule"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Change:
    """One changed path.

    Attributes:
        status: `added`, `modified`, `deleted`, `renamed` (the same content under another name) or `retyped`.
        path: where it is now, or was when it is deleted.
        kind: what stands there at the head; `nothing` when it is deleted.
        former: where a renamed file was, or "".
    """

    status: str
    path: str
    kind: Kind
    former: str = ""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """The changes of one head against the commit where it left its base.

    Attributes:
        base: the commit where the head left the base branch.
        head: the head's commit.
        changes: every changed path, in the order of the paths.
        authored: author times of the head's own commits, oldest first.
        committed: committer times of the same commits.
    """

    base: str
    head: str
    changes: tuple[Change, ...]
    authored: tuple[dt.datetime, ...]
    committed: tuple[dt.datetime, ...]


def commit_id(repository: Repository, name: str) -> str:
    """The commit that a name stands for.

    Raises:
        HarnessError: there is no such commit.
    """
    if not name or name.startswith("-") or "\0" in name:
        raise HarnessError(f"{shown(name)!r} is no name of a commit")
    try:
        data = repository.output("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except HarnessError:
        raise HarnessError(f"{repository.git_dir}: there is no commit {shown(name)!r}") from None
    return data.decode("ascii", "replace").split()[-1]


def holds(repository: Repository, commit: str, path: str) -> bool:
    """Whether a commit has an entry at a path."""
    try:
        repository.output("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:{path}")
    except HarnessError:
        return False
    return True


def read(repository: Repository, base: str, head: str) -> PullRequest:
    """What a head changes against the base that it left.

    Raises:
        HarnessError: a name stands for no commit, the two share no history, or git cannot say.
    """
    base_id, head_id = commit_id(repository, base), commit_id(repository, head)
    fork = _fork(repository, base_id, head_id)
    times = tuple(_times(repository, base_id, head_id))
    return PullRequest(
        base=fork,
        head=head_id,
        changes=changes(repository, fork, head_id),
        authored=tuple(sorted(authored for authored, _ in times)),
        committed=tuple(sorted(committed for _, committed in times)),
    )


def changes(repository: Repository, before: str, after: str) -> tuple[Change, ...]:
    """Every path in which two commits differ.

    A file counts as renamed only when its content is the same to the bit, so that no content has to be read.

    Raises:
        HarnessError: git cannot say, or more paths differ than any submission has.
    """
    options = ("-r", "-z", "--raw", "--no-abbrev", "--no-ext-diff", "--no-textconv", "-M100%", "-l5000")
    data = repository.output("diff-tree", *options, f"-O{os.devnull}", "--ignore-submodules=none", before, after)
    fields = data.split(b"\0")[:-1]
    found = list(_parsed(fields))
    if len(found) > CHANGES_LIMIT:
        raise HarnessError(f"the change touches {len(found):,} paths, more than the {CHANGES_LIMIT:,} that are read")
    return tuple(found)


def heads(repository: Repository, prefix: str) -> dict[str, str]:
    """The references below a prefix, each with the commit or tag it names.

    Raises:
        HarnessError: git cannot say.
    """
    data = repository.output("for-each-ref", "--format=%(objectname) %(refname)", "--", prefix)
    pairs = (os.fsdecode(line).split(" ", 1) for line in data.splitlines())
    return {name: target for target, name in pairs}


def record_folder(path: str) -> str:
    """The record folder that a path of a repository lies in, or "" when it lies in none.

    That is the folder below `records/<track>/`, or below `submissions/`. A folder that stands at `records/` itself,
    where a track should stand, counts too: it is a misplaced record, not something else.

    Example:
        >>> record_folder("records/track_10min_16mb/2026-04-01_Run/logs/seed1.log")
        'records/track_10min_16mb/2026-04-01_Run'
        >>> record_folder("records/README.md")
        ''
    """
    parts = path.split("/")
    depth = 3 if parts[0] == "records" and len(parts) > 1 and parts[1].startswith(TRACK_PREFIX) else 2
    return "/".join(parts[:depth]) if parts[0] in RECORD_ROOTS and len(parts) > depth else ""


def _fork(repository: Repository, base: str, head: str) -> str:
    try:
        data = repository.output("merge-base", base, head)
    except HarnessError:
        reason = "they share no history here; a shallow clone has to be deepened first (fetch-depth: 0)"
        raise HarnessError(f"{repository.git_dir}: where {head[:12]} left {base[:12]} is unknown: {reason}") from None
    return data.decode("ascii", "replace").split()[0]


def _parsed(fields: Sequence[bytes]) -> Iterator[Change]:
    """Changes of the raw format: `:mode mode id id status`, then one path, or two for a rename."""
    position = 0
    while position < len(fields):
        head = fields[position].decode("ascii", "replace").split()
        letter = head[4][0]
        first = os.fsdecode(fields[position + 1])
        renamed = letter in "RC"
        path = os.fsdecode(fields[position + 2]) if renamed else first
        former = first if letter == "R" else ""
        yield Change(_STATUSES.get(letter, "modified"), path, _kind(head[1]), former)
        position += 3 if renamed else 2


def _kind(mode: str) -> Kind:
    special = {_LINK_MODE: Kind.LINK, _SUBMODULE_MODE: Kind.SUBMODULE, _ABSENT_MODE: Kind.NOTHING}
    return special.get(mode, Kind.FILE)


def _times(repository: Repository, base: str, head: str) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """Author and committer times of the commits that the head has and the base has not."""
    options = ("--no-commit-header", "--format=%at %ct", f"--max-count={COMMITS_LIMIT}")
    data = repository.output("rev-list", *options, head, f"^{base}")
    for line in data.decode("ascii", "replace").splitlines():
        authored, committed = (_time(text) for text in line.split(" ", 1))
        if authored is not None and committed is not None:
            yield authored, committed


def _time(text: str) -> dt.datetime | None:
    """A commit's time; None when it is beyond the calendar, which a forged one may be."""
    try:
        return dt.datetime.fromtimestamp(int(text), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
