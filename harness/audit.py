"""Run the catalogue over folders: facts in, one report for each folder out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import os
import shlex
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness import __version__
from harness.challenge import (
    ARTIFACT_CAP_BYTES,
    EVAL_CAP_SECONDS,
    TRAIN_CAP_SECONDS,
    Edition,
    edition_named,
    edition_on,
)
from harness.checks import RULES
from harness.checks.combined import combine
from harness.checks.record import row_of
from harness.facts import probe, reproduction, scorekinds, submission
from harness.facts.build_previous import read_rows
from harness.facts.build_stated import Claimed
from harness.facts.previous import Previous, Row
from harness.facts.size import NOT_RECOUNTED
from harness.facts.submission import Submission
from harness.model import (
    Evidence,
    Finding,
    HarnessError,
    Limits,
    Located,
    Location,
    Missing,
    NotExercised,
    Outcome,
    Report,
    Rule,
    Status,
    SubmissionReport,
    Verdict,
    worst,
)
from harness.sources import excerpts
from harness.sources.folder import walk

# Starting a worker costs about as much as auditing a small folder.
FOLDERS_BEFORE_WORKERS = 4
MIXED_EDITIONS = "by date"


class RuleCrashed(Exception):  # noqa: N818 - it says what happened; the harness itself failed
    """Rules raised instead of deciding.

    Attributes:
        report: what the other rules said.
        crashes: for each rule that raised, its code, the folder, and the error.
    """

    def __init__(self, report: SubmissionReport, crashes: Sequence[str]) -> None:
        super().__init__("; ".join(crashes))
        self.report = report
        self.crashes = tuple(crashes)


def audit(
    facts: Submission, rules: Iterable[Rule[Submission]], edition: Edition, *, has_reproduction: bool
) -> SubmissionReport:
    """Run the rules over one submission.

    Args:
        facts: the submission.
        rules: the rules to run; those whose evidence was not asked for stand under `not_exercised`.
        edition: the edition of the rules that judges it.
        has_reproduction: whether the facts hold a reproduction's evidence.

    Raises:
        RuleCrashed: a rule raised; the exception carries the other rules' report.
    """
    findings: list[Finding] = []
    notes = [f"Judged by the rules' edition of {edition.name} ({edition.source})."]
    skipped: list[NotExercised] = []
    crashes: list[str] = []
    for rule in rules:
        if not _exercised(rule, facts, has_reproduction=has_reproduction):
            skipped.append(NotExercised(rule.code, _command(rule, facts)))
            continue
        try:
            outcome = _decide(rule, facts)
        except Exception as error:  # noqa: BLE001 - one broken rule must not hide what the others say
            crashes.append(f"{rule.code} on {facts.folder}: {_cause(error)}")
            continue
        if outcome is not None:
            findings.append(_finding(rule, outcome))
            notes += outcome.notes
    findings = combine(findings, facts)
    report = SubmissionReport(
        folder=facts.folder,
        name=facts.claims.name.value if isinstance(facts.claims.name, Located) else facts.name,
        verdict=worst(tuple(finding.verdict for finding in findings)),
        facts=submission.as_json(facts),
        findings=tuple(sorted(findings, key=lambda finding: (-finding.verdict.severity, finding.rule))),
        notes=tuple(dict.fromkeys(notes)),
        not_exercised=tuple(skipped),
    )
    if crashes:
        raise RuleCrashed(report, crashes)
    return report


def _exercised(rule: Rule[Submission], facts: Submission, *, has_reproduction: bool) -> bool:
    """Whether the evidence that the rule needs was asked for."""
    given = {
        Evidence.FOLDER: True,
        Evidence.REPRODUCTION: has_reproduction,
        Evidence.PROBE: facts.probe != probe.NO_PROBE,
        Evidence.PREVIOUS: not isinstance(facts.previous, Missing),
        Evidence.PULL_REQUEST: not isinstance(facts.change, Missing),
        Evidence.RECOUNT: facts.size.recount != NOT_RECOUNTED,
    }
    return given.get(rule.needs, False)


def _command(rule: Rule[Submission], facts: Submission) -> str:
    """The command that would run the rule."""
    if rule.needs is Evidence.PULL_REQUEST:
        return f"harness {rule.needs} REF"
    value = " PREVIOUS" if rule.needs is Evidence.PREVIOUS else ""
    return f"harness {rule.needs}{value} {shlex.quote(facts.folder)}"


def _decide(rule: Rule[Submission], facts: Submission) -> Outcome | None:
    """Run one rule and hold it to its status."""
    outcome = rule.check(facts)
    if outcome is not None and outcome.verdict is Verdict.FAIL and rule.status is not Status.SETTLED:
        raise ValueError(f"a {rule.status} rule may not fail a submission: {outcome.message}")
    return outcome


def _finding(rule: Rule[Submission], outcome: Outcome) -> Finding:
    return Finding(
        rule=rule.code,
        name=rule.name,
        family=rule.family,
        verdict=outcome.verdict,
        message=outcome.message,
        values=outcome.values,
        # What is not there has no place of its own: then the folder is the place.
        locations=outcome.locations or (Location("."),),
        authority=rule.authority,
        status=rule.status,
    )


def _cause(error: Exception) -> str:
    """The error and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


@dataclass(frozen=True, slots=True)
class Options:
    """How folders are audited.

    Attributes:
        codes: the rules to run, by code.
        edition: name of the edition, or empty for the one in force on each submission's date.
        evidence: directory that `harness reproduce` wrote, or None.
        probe: directory that `harness probe` wrote, or None.
        excerpts: whether the report quotes the lines that its findings name.
        previous: rows of a leaderboard, or of the one folder that is the previous record.
        previous_chosen: whether `previous` is that one folder.
        recount: whether the compressed size of the code is worked out anew for every folder.
    """

    codes: frozenset[str]
    edition: str = ""
    evidence: Path | None = None
    probe: Path | None = None
    excerpts: bool = False
    previous: tuple[Row, ...] = ()
    previous_chosen: bool = False
    recount: bool = False


@dataclass(frozen=True, slots=True)
class Audited:
    """One folder's end: a report, unless it could not be read.

    Attributes:
        report: what the rules said.
        edition: the edition that judged it.
        refused: why the folder cannot be audited, or "".
        crashes: failures of the harness itself.
    """

    report: SubmissionReport | None = None
    edition: str = ""
    refused: str = ""
    crashes: tuple[str, ...] = field(default=())


def audit_folder(folder: Path, options: Options, reader: Callable[[Path], Submission] | None = None) -> Audited:
    """Read one folder and audit it; never raises, so that one folder cannot end the audit of others.

    Args:
        folder: the record folder.
        options: how it is audited.
        reader: reads the facts instead of `read`, for callers that know more of the folder than it holds.
    """
    with _collector_resting():
        return _audited(folder, options, reader)


@contextlib.contextmanager
def _collector_resting() -> Iterator[None]:
    """No cyclic garbage collection meanwhile, and a quick one at the end.

    A script's syntax tree is a hundred thousand objects without a cycle: walking them again and again in search of
    one takes a tenth of an audit.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _audited(folder: Path, options: Options, reader: Callable[[Path], Submission] | None) -> Audited:
    edition = None
    try:
        facts = read(folder, options.evidence, recount=options.recount) if reader is None else reader(folder)
        if options.probe is not None:
            seen = probe.read(options.probe, walk(folder))
            claimed = Claimed(facts.claims, facts.readme)
            facts = dataclasses.replace(facts, probe=scorekinds.held_against(seen, facts.runs, claimed))
        edition = edition_for(facts, options.edition)
        if options.previous:
            previous = Previous(options.previous, edition, options.previous_chosen)
            facts = dataclasses.replace(facts, previous=previous)
        rules = [rule for rule in RULES if rule.code in options.codes]
        report = audit(facts, rules, edition, has_reproduction=not isinstance(facts.reproduction, Missing))
    except HarnessError as error:
        return Audited(refused=str(error))
    except RuleCrashed as crashed:
        return Audited(crashed.report, edition.name if edition else "", crashes=crashed.crashes)
    except Exception as error:  # noqa: BLE001 - reported with the folder's name, exit status 3
        return Audited(crashes=(f"reading {folder}: {_cause(error)}",))
    return Audited(quoting(report, folder) if options.excerpts else report, edition.name)


def quoting(report: SubmissionReport, folder: Path) -> SubmissionReport:
    """The report with the lines that its findings name, those of the worst first."""
    judged = [(place, finding.verdict is Verdict.PASS) for finding in report.findings for place in finding.locations]
    around = [place for place, passed in judged if not passed]
    alone = [place for place, passed in judged if passed] + excerpts.places_in(dict(report.facts))
    return dataclasses.replace(report, excerpts=excerpts.read(walk(folder), around, alone))


def read(folder: Path, evidence: Path | None, *, recount: bool = False) -> Submission:
    """The folder's facts, with those of a reproduction when there is one.

    Raises:
        HarnessError: this is no record folder, or the evidence cannot be read.
    """
    facts = submission.read(folder, recount=recount)
    package = facts.package
    named = isinstance(package.readme, Located) or isinstance(package.manifest, Located)
    held = [place.path for place in package.logs] + [script.path for script in package.scripts]
    if not named and not any("/" not in path for path in held):
        hint = "; name the record folders inside it" if held else ""
        raise HarnessError(f"{folder}: not a record folder (no README.md, submission.json, log or script in it){hint}")
    if evidence is None:
        return facts
    return dataclasses.replace(facts, reproduction=reproduction.read(evidence, walk(folder)))


def read_previous(path: Path) -> tuple[Row, ...]:
    """The rows of a leaderboard file, or the one row of a record folder.

    Raises:
        HarnessError: neither can be read, or no score stands in it.
    """
    if not path.is_dir():
        rows = read_rows(path)
        if not rows:
            raise HarnessError(f"{path}: the leaderboard has no row")
        return rows
    row = row_of(read(path, None))
    if isinstance(row, Missing):
        raise HarnessError(f"{path}: no previous record ({row.reason})")
    return (row,)


def edition_for(facts: Submission, name: str) -> Edition:
    """The edition named, else the one in force on the submission's date, else the latest."""
    if name:
        return edition_named(name)
    date = facts.claims.date
    return edition_on(date.value if isinstance(date, Located) else None)


def audit_folders(folders: Sequence[Path], options: Options, workers: int | None = None) -> Iterator[Audited]:
    """Audit folders, several at a time when there are many, and yield them in order."""
    count = min(len(folders), workers or available_processors())
    one = functools.partial(audit_folder, options=options)
    if count <= 1 or len(folders) < FOLDERS_BEFORE_WORKERS:
        yield from map(one, folders)
        return
    with ProcessPoolExecutor(max_workers=count) as pool:
        yield from pool.map(one, folders)


def available_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def report_of(audited: Iterable[Audited]) -> Report:
    """One document from the folders that could be read."""
    reports: list[SubmissionReport] = []
    editions: list[str] = []
    for one in audited:
        if one.report is not None:
            reports.append(one.report)
            editions.append(one.edition)
    names = sorted(set(filter(None, editions)))
    edition = names[0] if len(names) == 1 else MIXED_EDITIONS
    limits = Limits(ARTIFACT_CAP_BYTES, TRAIN_CAP_SECONDS, EVAL_CAP_SECONDS)
    return Report(__version__, edition, tuple(reports), limits)
