"""What a pull request changes, and when its commits say that they were made."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from harness.model import Fact, Located, Missing

NO_CHANGE = Missing("no pull request was given")


@dataclass(frozen=True, slots=True)
class ChangedPath:
    """One path of the repository; `status` is `added`, `modified`, `retyped`, `deleted` or `moved away`."""

    status: str
    path: str


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """A pull request as a whole, beside the one record folder that is audited; every name is fit for output.

    Attributes:
        base: the commit where the head left its base.
        head: the head's commit.
        new_folders: record folders that the base does not have.
        edited_folders: record folders of the base in which something changes.
        misplaced: those of the new folders that stand below no track.
        removed: files that records of the base lose.
        moved: for each new folder to which files of a record of the base are moved, that record.
        outside: changed paths that lie in no record folder.
        first_commit: committer time of the head's first own commit.
        last_commit: committer time of its last one.
        withheld: entries of the audited folder whose content the repository does not hold, or that are unsafe to read.
    """

    base: str
    head: str
    new_folders: tuple[str, ...]
    edited_folders: tuple[str, ...]
    misplaced: tuple[str, ...]
    removed: tuple[ChangedPath, ...]
    moved: tuple[tuple[str, str], ...]
    outside: tuple[ChangedPath, ...]
    first_commit: Fact[dt.datetime]
    last_commit: Fact[dt.datetime]
    withheld: tuple[Located[str], ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """Every record folder that the change touches, new ones first."""
        return (*self.new_folders, *self.edited_folders)
