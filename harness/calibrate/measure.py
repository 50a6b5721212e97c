"""Audit every labelled submission of a clone, several at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.atcommit import Prober, audit_commit
from harness.audit import Audited, Options, available_processors
from harness.calibrate.judge import Judged, Outcome, judge, twins, without_report
from harness.calibrate.labels import Label
from harness.model import HarnessError
from harness.sources import pullrequest
from harness.sources.folder import shown
from harness.sources.gitprogram import Repository
from harness.workers import Done, each


@dataclass(frozen=True, slots=True)
class _Task:
    """One folder of one commit, which several labels may share."""

    repository: Repository
    commit: str
    folder: str
    options: Options
    prober: Prober | None


@dataclass(frozen=True, slots=True)
class _Answer:
    audited: Audited
    seconds: float


def measure(
    labels: Sequence[Label],
    repository: Repository,
    options: Options,
    seconds: float,
    workers: int = 0,
    *,
    prober: Prober | None = None,
) -> Iterator[Judged]:
    """Judge each label by the audit of its folder, in the order in which audits end.

    Args:
        labels: what is known.
        repository: a clone that holds the commits.
        options: how folders are audited.
        seconds: how long one audit may take.
        workers: processes at a time; as many as there are processors when it is zero.
        prober: makes evidence of each folder's behaviour.
    """
    pairs = twins(labels)
    wanted: dict[tuple[str, str], list[Label]] = {}
    for label in labels:
        problem = _unavailable(label, repository)
        if problem:
            yield without_report(label, Outcome.ABSENT, problem)
        else:
            wanted.setdefault((label.commit, label.folder), []).append(label)
    tasks = [_Task(repository, commit, folder, options, prober) for commit, folder in wanted]
    for done in each(_audit, tasks, workers=workers or available_processors(), seconds=seconds):
        for label in wanted[done.task.commit, done.task.folder]:
            yield _judged(label, pairs.get(label.id), done)


def _unavailable(label: Label, repository: Repository) -> str:
    """Why a label's folder cannot be audited, or ""."""
    if not label.folder:
        return f"{shown(label.path)} lies in no record folder"
    try:
        pullrequest.commit_id(repository, label.commit)
    except HarnessError:
        return f"the clone does not hold commit {label.commit[:12]}"
    if not pullrequest.holds(repository, label.commit, label.path):
        return f"commit {label.commit[:12]} has no file {shown(label.path)}"
    return ""


def _audit(task: _Task) -> _Answer:
    started = time.perf_counter()
    audited = audit_commit(task.repository, task.commit, task.folder, task.options, prober=task.prober)
    return _Answer(audited, time.perf_counter() - started)


def _judged(label: Label, twin: Label | None, done: Done[_Task, _Answer]) -> Judged:
    if done.result is None:
        return without_report(label, Outcome.CRASHED, f"the audit failed: {done.failure}", done.seconds)
    audited, seconds = done.result.audited, done.result.seconds
    if audited.refused:
        return without_report(label, Outcome.ABSENT, audited.refused, seconds)
    if audited.report is None:
        return without_report(label, Outcome.CRASHED, "; ".join(audited.crashes), seconds)
    judged = judge(label, twin, audited.report.findings, seconds)
    # A rule of ours that raised has said nothing: its silence is no verdict, and has to be seen.
    return dataclasses.replace(judged, problem="; ".join(audited.crashes))
