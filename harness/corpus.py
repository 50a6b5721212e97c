"""Audit what many pull requests of a clone add: the way to learn how rules behave on folders that nobody here has seen.

Each head is audited in a process of its own, which is killed when it takes too long; its row is appended to a file at
once, so that an interrupted survey goes on where it ended.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.atcommit import audit_commit
from harness.audit import Audited, Options, available_processors
from harness.model import HarnessError
from harness.sources import pullrequest
from harness.sources.folder import shown
from harness.sources.gitprogram import Repository
from harness.workers import Done, each

PULL_REFS: Final = "refs/pull/"
# A head that started from a stale base adds other people's folders too.
FOLDERS_LIMIT: Final = 5
PLACES_LIMIT: Final = 3

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """One head to audit: its reference, its commit, the record folders that it adds to, and how to audit them."""

    repository: Repository
    reference: str
    commit: str
    folders: tuple[str, ...]
    options: Options


def references(repository: Repository, prefix: str) -> list[str]:
    """The references below a prefix, sorted; GitHub's trial merges are left out."""
    found = pullrequest.heads(repository, prefix)
    return sorted(name for name in found if not name.endswith("/merge"))


def sampled(names: Sequence[str], seed: int) -> list[str]:
    """The names in a random order that is the same for the same seed."""
    return random.Random(seed).sample(list(names), len(names))  # noqa: S311 - a sample, not a secret


def adding(repository: Repository, base: str, names: Sequence[str], options: Options) -> Iterator[Head]:
    """Those heads that add to a record folder, in order; heads that the base holds already add nothing."""
    for name in names:
        try:
            change = pullrequest.read(repository, base, name)
        except HarnessError:
            continue
        folders = list(dict.fromkeys(filter(None, (_folder(one) for one in change.changes))))
        if folders:
            yield Head(repository, name, change.head, tuple(folders[:FOLDERS_LIMIT]), options)


def _folder(change: pullrequest.Change) -> str:
    return "" if change.kind is pullrequest.Kind.NOTHING else pullrequest.record_folder(change.path)


def survey(heads: Sequence[Head], results: Path | None, seconds: float, workers: int = 0) -> Iterator[Row]:
    """Audit heads in parallel and yield a row for each, those first that a results file holds already.

    Args:
        heads: what to audit.
        results: a file of JSON lines to go on with and to append to, or None.
        seconds: how long one head may take.
        workers: processes at a time; as many as there are processors when it is zero.

    Raises:
        HarnessError: the results file holds something else, or cannot be written.
    """
    known = _kept(results)
    yield from (known[key] for head in heads if (key := (head.reference, head.commit)) in known)
    fresh = [head for head in heads if (head.reference, head.commit) not in known]
    for done in each(audit_head, fresh, workers=workers or available_processors(), seconds=seconds):
        row = _row(done)
        _append(results, row)
        yield row


def audit_head(head: Head) -> list[Row]:
    """Audit the folders of one head; never raises."""
    rows: list[Row] = []
    for folder in head.folders:
        started = time.perf_counter()
        audited = audit_commit(head.repository, head.commit, folder, head.options)
        rows.append({"folder": shown(folder), "seconds": round(time.perf_counter() - started, 3), **_told(audited)})
    return rows


def _told(audited: Audited) -> Row:
    report = audited.report
    findings = [] if report is None else report.findings
    return {
        "verdict": "" if report is None else report.verdict.value,
        "refused": audited.refused,
        "crashes": list(audited.crashes),
        "findings": [
            {
                "rule": finding.rule,
                "name": finding.name,
                "verdict": finding.verdict.value,
                "message": finding.message,
                "places": [str(place) for place in finding.locations[:PLACES_LIMIT]],
            }
            for finding in findings
        ],
    }


def _row(done: Done[Head, list[Row]]) -> Row:
    return {
        "reference": done.task.reference,
        "commit": done.task.commit,
        "seconds": round(done.seconds, 3),
        "peak_bytes": done.peak_bytes,
        "failure": done.failure,
        "folders": done.result or [],
    }


def _kept(results: Path | None) -> dict[tuple[str, str], Row]:
    """The rows of a results file; a last line that an interruption cut is dropped."""
    if results is None or not results.exists():
        return {}
    lines = results.read_text(encoding="utf-8").split("\n")
    rows: dict[tuple[str, str], Row] = {}
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
            rows[row["reference"], row["commit"]] = row
        except (ValueError, KeyError, TypeError):
            raise HarnessError(f"{results}:{number}: not a row of a survey; name another file") from None
    if lines[-1]:
        results.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    return rows


def _append(results: Path | None, row: Row) -> None:
    if results is None:
        return
    try:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
    except OSError as error:
        raise HarnessError(f"{results}: cannot be written ({error.strerror})") from error
