"""A pull request's changed paths, sorted by what they mean for the competition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from harness.facts.change import ChangedPath, ChangeFacts
from harness.model import Fact, Located, Location, Missing
from harness.sources import committed, pullrequest
from harness.sources.folder import shown
from harness.sources.gitprogram import Repository
from harness.sources.pullrequest import PullRequest, record_folder


def build_change(repository: Repository, pull: PullRequest) -> ChangeFacts:
    """The facts of a whole pull request.

    Raises:
        HarnessError: git cannot say whether the base has a folder.
    """
    paths = list(_paths(pull))
    folders = record_folders(pull)
    new = [folder for folder in folders if not pullrequest.holds(repository, pull.base, folder)]
    return ChangeFacts(
        base=pull.base,
        head=pull.head,
        new_folders=tuple(map(shown, new)),
        edited_folders=tuple(shown(folder) for folder in folders if folder not in new),
        misplaced=tuple(shown(folder) for folder in new if folder.startswith("records/") and folder.count("/") == 1),
        removed=_shown(one for one in paths if one.status in {"deleted", "moved away"} and record_folder(one.path)),
        moved=tuple(dict.fromkeys(_moves(pull, new))),
        outside=_shown(one for one in paths if not record_folder(one.path)),
        first_commit=_time(pull, 0),
        last_commit=_time(pull, -1),
    )


def record_folders(pull: PullRequest) -> list[str]:
    """The record folders that a change touches, in the order of their paths, by their names in the repository."""
    return list(dict.fromkeys(folder for one in _paths(pull) if (folder := record_folder(one.path))))


def withheld(extracted: committed.Extracted) -> tuple[Located[str], ...]:
    """What of a folder cannot be read: refused entries, and pointers to content that is kept elsewhere."""
    pointers = (
        Located("a Git LFS pointer: its content is kept elsewhere", Location(path)) for path in extracted.pointers
    )
    return (*extracted.refused, *pointers)


def _paths(pull: PullRequest) -> Iterator[ChangedPath]:
    """Changed paths; a renamed file is one that is added here and one that is gone there."""
    for change in pull.changes:
        if change.former:
            yield ChangedPath("moved away", change.former)
        yield ChangedPath("added" if change.status == "renamed" else change.status, change.path)


def _shown(paths: Iterable[ChangedPath]) -> tuple[ChangedPath, ...]:
    """The paths fit for output: names are bytes of somebody's choice."""
    return tuple(ChangedPath(one.status, shown(one.path)) for one in paths)


def _moves(pull: PullRequest, new: Sequence[str]) -> Iterator[tuple[str, str]]:
    for change in pull.changes:
        here, there = record_folder(change.path), record_folder(change.former)
        if there and here in new:
            yield shown(here), shown(there)


def _time(pull: PullRequest, index: int) -> Fact[dt.datetime]:
    if not pull.committed:
        return Missing("the head's commits have no readable time")
    return Located(pull.committed[index], Location("."))
