"""Record folders ranked by what their logs say: `harness leaderboard`.

One document, `leaderboard/1` of `schemas/leaderboard.schema.json`; `harness audit --previous` reads it back.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import __version__, audit
from harness.checks import RULES
from harness.checks.budget import track
from harness.checks.common import counted, known
from harness.checks.record import row_of, scores
from harness.checks.welch import welch
from harness.facts.previous import Row
from harness.facts.submission import Submission
from harness.model import Fact, HarnessError, Missing, SubmissionReport, Verdict
from harness.sources.folder import shown

SCHEMA = "leaderboard/1"
RECORD_TRACKS = ("record", "non-record", "")
# How deep below a named directory record folders are looked for: records/TRACK/FOLDER.
SEARCH_DEPTH = 2
MARKS = ("submission.json", "train_gpt.py")
FEWEST_FOR_WORKERS = 4
CRASHED = "harness failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder.

    Attributes:
        folder: its path as given.
        track: `record`, `non-record`, or empty where nothing says.
        row: its scores, or why there are none.
        verdict: the audit's end; empty when the folder could not be audited.
        details: the further keys of its row in the document.
    """

    folder: str
    track: str
    row: Row | Missing
    verdict: str
    details: dict[str, Any]


def find_folders(paths: Sequence[Path]) -> list[Path]:
    """The record folders among paths and, where a path is none itself, below them; each once, in order.

    Raises:
        HarnessError: a path is no directory, or holds no record folder.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise HarnessError(f"{path}: no directory")
        below = _below(path, SEARCH_DEPTH)
        if not below:
            raise HarnessError(f"{path}: no record folder in it")
        found += below
    return list(dict.fromkeys(found))


def _below(path: Path, depth: int) -> list[Path]:
    if any((path / name).is_file() for name in MARKS):
        return [path]
    children = sorted(path.iterdir())
    inner = [child for child in children if child.is_dir() and not child.is_symlink()] if depth else []
    found = [folder for child in inner if not child.name.startswith(".") for folder in _below(child, depth - 1)]
    # A record folder that lacks all of these may still hold a log; beside record folders, files describe those.
    return found or ([path] if any(child.is_file() for child in children) else [])


def rank(folders: Sequence[Path], options: audit.Options) -> dict[str, Any]:
    """Audit the folders and rank them.

    Args:
        folders: record folders.
        options: how they are audited; its `codes` give the verdict.
    """
    one = functools.partial(entry_of, options=options)
    count = min(len(folders), audit.available_processors())
    if count <= 1 or len(folders) < FEWEST_FOR_WORKERS:
        return document([one(folder) for folder in folders])
    with ProcessPoolExecutor(max_workers=count) as pool:
        return document(list(pool.map(one, folders)))


def entry_of(folder: Path, options: audit.Options) -> Entry:
    """Read and audit one folder; never raises, so that one folder cannot end the ranking of others."""
    name = shown(str(folder))
    try:
        facts = audit.read(folder, None)
        report = _audited(facts, options)
        verdict = CRASHED if report is None else report.verdict.value
        return Entry(name, track(facts), row_of(facts), verdict, _details(facts, report))
    except (HarnessError, OSError) as error:
        return Entry(name, "", Missing(str(error)), "", {})
    except Exception as error:  # noqa: BLE001 - reported with the folder's name, exit status 3
        return Entry(name, "", Missing(f"{type(error).__name__}: {error}"), CRASHED, {})


def _audited(facts: Submission, options: audit.Options) -> SubmissionReport | None:
    """The folder's report; None when a rule crashed, which `harness audit` tells in full."""
    rules = [rule for rule in RULES if rule.code in options.codes]
    try:
        return audit.audit(facts, rules, audit.edition_for(facts, options.edition), has_reproduction=False)
    except audit.RuleCrashed:
        return None


def _details(facts: Submission, report: SubmissionReport | None) -> dict[str, Any]:
    chosen = counted(facts)
    return {
        "title": known(facts.claims.name) or facts.name,
        "author": known(facts.claims.author),
        "basis": _basis(facts, len(chosen.runs)),
        "claimed_bpb": known(facts.claims.val_bpb),
        "artifact_bytes": _largest([run.total_bytes for run in chosen.runs]) or known(facts.claims.bytes_total),
        "train_seconds": _largest([run.train_seconds for run in chosen.runs]),
        "eval_seconds": _largest([run.eval_seconds for run in chosen.runs]),
        "failed": [finding.rule for finding in (report.findings if report else ()) if finding.verdict is Verdict.FAIL],
    }


def _basis(facts: Submission, logs: int) -> str:
    """Where the row's scores come from, in words."""
    found, _ = scores(facts)
    if not found:
        return "the claim alone"
    if all(score.location.pointer is None and score.location.path.endswith(".md") for score in found):
        return "README"
    if any(score.location.pointer is not None for score in found):
        return "submission.json"
    return "1 log" if logs == 1 else f"{logs} logs"


def _largest(facts: Sequence[Fact[Any]]) -> Any:  # noqa: ANN401 - a number of either kind
    return max((value for fact in facts if (value := known(fact)) is not None), default=None)


def document(entries: Sequence[Entry]) -> dict[str, Any]:
    """The ranked document: tracks one after the other, best score first; below them what has no score."""
    rows: list[dict[str, Any]] = []
    for name in RECORD_TRACKS:
        rows += _ranked([entry for entry in entries if entry.track == name and isinstance(entry.row, Row)])
    unranked = [
        {"folder": entry.folder, "track": entry.track, "verdict": entry.verdict or None, "reason": entry.row.reason}
        for entry in entries
        if isinstance(entry.row, Missing)
    ]
    tool = {"name": "harness", "version": __version__}
    return {"schema": SCHEMA, "tool": tool, "rows": rows, "unranked": unranked}


def _ranked(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """One track's rows; equal means keep the order of dates, then of names."""
    pairs = [(entry, entry.row) for entry in entries if isinstance(entry.row, Row)]
    pairs.sort(key=lambda pair: (round(pair[1].sample.mean, 8), str(pair[1].date or "9999"), pair[1].name))
    every = [row for _, row in pairs]
    rows = []
    for index, (entry, row) in enumerate(pairs):
        above = every[index - 1] if index else None
        record = record_before(row, every)
        sample = row.sample
        rows.append(
            {
                "rank": index + 1,
                "name": row.name,
                "folder": entry.folder,
                "track": entry.track,
                "date": row.date.isoformat() if row.date else None,
                "mean_bpb": round(sample.mean, 8),
                "deviation_bpb": None if sample.deviation is None else round(sample.deviation, 8),
                "count": sample.count,
                "scores_bpb": list(sample.values),
                "verdict": entry.verdict or None,
                **entry.details,
                "against_row_above": None if above is None else _test(above, row, name=above.name),
                "against_record": None if record is None else _test(row, record, name=record.name),
            }
        )
    return rows


def record_before(row: Row, rows: Sequence[Row]) -> Row | None:
    """The best row of an earlier date; rows of one day are in no known order."""
    date = row.date
    earlier = [other for other in rows if date is not None and other.date is not None and other.date < date]
    return min(earlier, key=lambda other: other.sample.mean, default=None)


def _test(better: Row, worse: Row, *, name: str) -> dict[str, Any]:
    """One-sided Welch test of `the one is better than the other`; `name` is the row that is compared with."""
    p_value = welch(better.sample, worse.sample)
    return {
        "name": name,
        "difference_bpb": round(better.sample.mean - worse.sample.mean, 8),
        "p_value": None if p_value is None else round(p_value, 6),
    }
