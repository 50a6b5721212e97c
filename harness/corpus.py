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
from types import MappingProxyType, UnionType
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
# What a survey reads of its rows: names and types.
_ROW: Final[Mapping[str, type | UnionType]] = MappingProxyType(
    {"reference": str, "commit": str, "seconds": int | float, "peak_bytes": int | None, "failure": str, "folders": list}
)
_FOLDER: Final[Mapping[str, type | UnionType]] = MappingProxyType(
    {"folder": str, "verdict": str, "refused": str, "crashes": list, "findings": list}
)
_FINDING: Final[Mapping[str, type | UnionType]] = MappingProxyType(
    {"rule": str, "name": str, "verdict": str, "message": str, "places": list}
)
# How the line of a row begins: what else stands in a line that is cut was not written by a survey.
_ROW_BEGINS: Final = '{"reference": "'


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


def check_results(results: Path | None) -> None:
    """Refuse a results file that cannot be gone on with, before the heads are looked for.

    Raises:
        HarnessError: it cannot be read or made, or holds something else.
    """
    if results is not None:
        _read(results)


def _kept(results: Path | None) -> dict[tuple[str, str], Row]:
    """The rows of a results file; a last line that an interruption cut is dropped."""
    if results is None:
        return {}
    rows, whole = _read(results)
    if whole is not None:
        results.write_text(whole, encoding="utf-8")
    return rows


def _read(results: Path) -> tuple[dict[tuple[str, str], Row], str | None]:
    """The rows of a results file, and its whole lines where the last one is cut."""
    *lines, last = _text(results).split("\n")
    rows: dict[tuple[str, str], Row] = {}
    for number, line in enumerate(lines, 1):
        row = _parsed(line)
        if row is None:
            raise HarnessError(f"{results}:{number}: not a row of a survey; name another file")
        rows[row["reference"], row["commit"]] = row
    if not (_ROW_BEGINS.startswith(last) or last.startswith(_ROW_BEGINS)):
        raise HarnessError(f"{results}:{len(lines) + 1}: not a row of a survey; name another file")
    return rows, "".join(f"{line}\n" for line in lines) if last else None


def _text(results: Path) -> str:
    """The text of a results file; nothing where there is none yet."""
    if not results.exists():
        if not results.parent.is_dir():
            raise HarnessError(f"{results}: cannot be written ({results.parent} is no directory)")
        return ""
    if not results.is_file():
        raise HarnessError(f"{results}: no regular file")
    try:
        return results.read_text(encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"{results}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise HarnessError(f"{results}: not the rows of a survey, which are UTF-8; name another file") from None


def _parsed(line: str) -> Row | None:
    """A line as a row; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = (
        _fits(row, _ROW)
        and all(_fits(folder, _FOLDER) for folder in row["folders"])
        and all(_fits(finding, _FINDING) for folder in row["folders"] for finding in folder["findings"])
    )
    return row if whole else None


def _fits(value: object, shape: Mapping[str, type | UnionType]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in shape.items())


def _append(results: Path | None, row: Row) -> None:
    if results is None:
        return
    try:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
    except OSError as error:
        raise HarnessError(f"{results}: cannot be written ({error.strerror})") from error
