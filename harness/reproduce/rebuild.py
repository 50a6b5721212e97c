"""The artifact again: packed from the saved weights, and scored from disk, each in a fresh process and directory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.reproduce import artifact, dataset, measure, outcome, seed, trusted
from harness.reproduce.artifact import Artifact
from harness.reproduce.executors.base import Ending, Job
from harness.reproduce.phases import PhaseWatch
from harness.reproduce.plan import Plan
from harness.reproduce.progress import Progress
from harness.reproduce.seed import Machine, Trained

NOT_DECLARED: Final = "submission.json does not declare how"
SKIPPED: Final = "skipped by request"


@dataclass(frozen=True, slots=True)
class Rebuilder:
    """Rebuilds the artifact of one seed."""

    plan: Plan
    number: int
    target: Path
    machine: Machine
    progress: Progress

    def run(self, trained: Trained) -> dict[str, Any]:
        """The `repack` and `rescore` parts of `run.json`."""
        return {"repack": self._repack(trained), "rescore": self._rescore(trained)}

    def _repack(self, trained: Trained) -> dict[str, Any]:
        declared, left = self.plan.declared, trained.artifact
        reason = self._unable(declared.repack if declared.weights else None, trained)
        if reason or left is None or declared.repack is None:
            return _repacked(*_skip(reason))
        work = self.target / "repack"
        seed.copy_code(self.plan, work)
        trained_in = self.target / seed.WORK
        weights = [path for path in artifact.matching(trained_in, declared.weights) if not _is(path, trained_in, left)]
        if not weights:
            return _repacked("failed", f"no weights {declared.weights} were left")
        for path in weights:
            _copy(trained_in, path, work)
        ending = self._execute("repacking", declared.repack, self._repack_data(trained), work)
        detail = self._problem(ending)
        again = None if detail else _identified(work, left.path)
        _remove(work)
        if again is None:
            return _repacked("failed", detail or f"no {left.path} was written", seconds=ending.seconds)
        if again.sha256 == left.sha256:
            return _repacked("same", "", again.sha256, ending.seconds)
        told = (
            f"{again.size_bytes:,} bytes of hash {again.sha256[:12]}, first {left.size_bytes:,} of {left.sha256[:12]}"
        )
        return _repacked("different", told, again.sha256, ending.seconds)

    def _repack_data(self, trained: Trained) -> dataset.Dataset | None:
        """Without validation shards for our own scripts; others may open them at their start, whatever they do."""
        if self.plan.data is None or not trusted.is_trusted(self.plan.code):
            return trained.data
        _remove(self.target / seed.DATA)
        return dataset.without_validation(self.plan.data, self.target / seed.DATA)

    def _rescore(self, trained: Trained) -> dict[str, Any]:
        declared, left = self.plan.declared, trained.artifact
        reason = self._unable(declared.evaluate, trained)
        if reason or left is None or declared.evaluate is None:
            return _rescored(*_skip(reason))
        work = self.target / "rescore"
        seed.copy_code(self.plan, work)
        _copy(self.target / seed.WORK, self.target / seed.WORK / left.path, work)
        # The same place as while training, so that both runs get the same settings.
        _remove(self.target / seed.DATA)
        data = None if self.plan.data is None else dataset.without_training(self.plan.data, self.target / seed.DATA)
        ending = self._execute("rescoring", declared.evaluate, data, work)
        _remove(work)
        measured = measure.read(self.target / "rescore.log")
        failure = outcome.of_score(measured.val_bpb)
        detail = self._problem(ending) or ("" if failure is None else failure.detail)
        if detail:
            return _rescored("failed", detail, seconds=ending.seconds)
        return _rescored("ok", "", (measured.val_bpb, measured.line), ending.seconds)

    def _unable(self, variables: Mapping[str, str] | None, trained: Trained) -> str:
        if not self.plan.rebuild:
            return SKIPPED
        if trained.failure is not None:
            return "the first run failed"
        if variables is None:
            return NOT_DECLARED
        return "there is no artifact" if trained.artifact is None else ""

    def _execute(self, phase: str, variables: Mapping[str, str], data: dataset.Dataset | None, work: Path) -> Ending:
        limits = self.plan.limits
        limit = limits.startup_seconds + limits.eval_seconds + limits.grace_seconds
        base = seed.variables(self.plan, self.number, self.target, self.machine.caller)
        job = Job(
            command=seed.command(self.plan),
            directory=work,
            environment=base | (data.environment(work) if data else {}) | dict(variables),
            log=self.target / f"{work.name}.log",
            times=self.target / f"{work.name}.times",
            caps=self.machine.caps,
            data=None if data is None else self.target / seed.DATA,
        )
        return self.machine.executor.execute(job, PhaseWatch(self.number, phase, limit, self.progress.update))

    def _problem(self, ending: Ending) -> str:
        failure = outcome.of_process(ending, seed.own_modules(self.plan), self.machine.accelerators)
        return "" if failure is None else f"{failure.outcome}, {failure.detail}"


def _skip(reason: str) -> tuple[str, str]:
    return ("not_declared" if reason == NOT_DECLARED else "skipped", reason)


def _repacked(word: str, detail: str, sha256: str | None = None, seconds: float | None = None) -> dict[str, Any]:
    return {"outcome": word, "detail": detail, "sha256": sha256, "seconds": _rounded(seconds)}


def _rescored(
    word: str, detail: str, score: tuple[float | None, int] = (None, 0), seconds: float | None = None
) -> dict[str, Any]:
    return {
        "outcome": word,
        "detail": detail,
        "val_bpb": score[0],
        "line": score[1] or None,
        "seconds": _rounded(seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _is(path: Path, directory: Path, left: Artifact) -> bool:
    return path == directory / left.path


def _identified(directory: Path, path: str) -> Artifact | None:
    found = directory / path
    return artifact.identify(directory, found) if found.is_file() and not found.is_symlink() else None


def _copy(source: Path, path: Path, target: Path) -> None:
    goal = target / path.relative_to(source)
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, goal)


def _remove(directory: Path) -> None:
    """Remove what the evidence does not need; its hashes and logs stay."""
    shutil.rmtree(directory, ignore_errors=True)
