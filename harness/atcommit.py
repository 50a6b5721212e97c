"""Audit a record folder as a commit of a repository holds it, without a checkout."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.audit import Audited, Options, audit_folder, read
from harness.facts import submission
from harness.facts.build_change import withheld
from harness.facts.change import ChangeFacts
from harness.facts.submission import Submission
from harness.model import HarnessError
from harness.sources import committed
from harness.sources.folder import shown
from harness.sources.gitprogram import Repository

Prober = Callable[[Path], Path]


def audit_commit(
    repository: Repository,
    commit: str,
    folder: str,
    options: Options,
    change: ChangeFacts | None = None,
    *,
    prober: Prober | None = None,
) -> Audited:
    """Audit one folder of one commit; never raises.

    Args:
        repository: where the commit is.
        commit: a commit that exists there.
        folder: the record folder's path in the repository; the report names the folder so.
        options: how it is audited.
        change: the pull request that the folder belongs to. With it the folder is audited whatever it holds, since
            what it lacks is then a defect, and no mistake of the caller's.
        prober: makes evidence of the folder's behaviour, and names its directory; where it cannot, a note says why.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as directory:
        where = Path(directory).resolve()
        try:
            extracted = committed.extract(repository, commit, folder, where)
        except HarnessError as error:
            return Audited(refused=str(error))

        def reader(path: Path) -> Submission:
            if change is None:
                return dataclasses.replace(read(path, None), folder=shown(folder))
            whole = dataclasses.replace(change, withheld=withheld(extracted))
            return dataclasses.replace(submission.read(path), folder=shown(folder), change=whole)

        options, notes = _probed(extracted.folder, options, prober)
        audited = audit_folder(extracted.folder, options, reader)
    report = audited.report
    return dataclasses.replace(
        audited,
        report=report
        and dataclasses.replace(report, notes=(*report.notes, *(_without(note, where) for note in notes))),
        refused=_without(audited.refused, where),
        crashes=tuple(_without(crash, where) for crash in audited.crashes),
    )


def _probed(folder: Path, options: Options, prober: Prober | None) -> tuple[Options, tuple[str, ...]]:
    """The options with evidence of a probe, or why there is none."""
    if prober is None:
        return options, ()
    try:
        return dataclasses.replace(options, probe=prober(folder)), ()
    except HarnessError as error:
        return options, (f"Not probed: {error}.",)


def audit_nothing(options: Options, change: ChangeFacts) -> Audited:
    """Audit a pull request that leaves no record folder: only the rules on pull requests have something to say."""

    def reader(path: Path) -> Submission:
        return dataclasses.replace(submission.read(path), folder=".", name="", change=change)

    with tempfile.TemporaryDirectory(prefix="harness-") as directory:
        return audit_folder(Path(directory), options, reader)


def _without(text: str, where: Path) -> str:
    """A message without the temporary directory, which means nothing to its reader."""
    return text.replace(f"{where}/", "")
