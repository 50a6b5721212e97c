"""Audit a record folder as a commit of a repository holds it, without a checkout."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from harness.audit import Audited, Options, audit_folder
from harness.facts.submission import Submission
from harness.model import HarnessError
from harness.sources import committed
from harness.sources.gitprogram import Repository


def audit_commit(repository: Repository, commit: str, folder: str, options: Options) -> Audited:
    """Audit one folder of one commit; never raises.

    Args:
        repository: where the commit is.
        commit: a commit that exists there.
        folder: the record folder's path in the repository; the report names the folder so.
        options: how it is audited.
    """

    def placed(facts: Submission) -> Submission:
        return dataclasses.replace(facts, folder=folder)

    with tempfile.TemporaryDirectory(prefix="harness-") as directory:
        where = Path(directory).resolve()
        try:
            extracted = committed.extract(repository, commit, folder, where)
        except HarnessError as error:
            return Audited(refused=str(error))
        audited = audit_folder(extracted.folder, options, placed)
    return dataclasses.replace(
        audited,
        refused=_without(audited.refused, where),
        crashes=tuple(_without(crash, where) for crash in audited.crashes),
    )


def _without(text: str, where: Path) -> str:
    """A message without the temporary directory, which means nothing to its reader."""
    return text.replace(f"{where}/", "")
