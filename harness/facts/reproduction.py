"""What `harness reproduce` measured: read back from an evidence directory, never from the submission."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.model import Fact, Located, Location, Missing
from harness.sources import evidence
from harness.sources.folder import Folder


@dataclass(frozen=True, slots=True)
class SeedMeasurement:
    """One seed that was run.

    Attributes:
        seed: the seed given to the script.
        outcome: `ok`, or the failure: `crash`, `timeout`, `killed` (too much output or memory), `no_artifact`,
            `no_metric`, `nan`.
        detail: one line on the failure.
        machine_lacks: what this machine lacks that explains the failure, or "".
        val_bpb: measured bits per byte of the scored evaluation.
        val_loss: nats per token.
        steps: optimizer steps.
        step_milliseconds: mean duration of a step.
        startup_seconds: from the start of the process to the start of training, by the harness' own clock.
        train_seconds: training time by the harness' own clock.
        eval_seconds: evaluation time by the harness' own clock.
        model_bytes: the compressed model, on disk.
        artifact_bytes: entry script plus model, recounted from disk.
        all_code_bytes: every copied code file plus model.
        logged_bytes: artifact size as the script's own log states it.
        artifact_sha256: hash of the model file.
        repacked: Located(True) when repacking the saved weights gave the same bytes; Missing where not declared.
        repack_detail: why it did not, or "".
        rescored_val_bpb: value of the second scoring, from disk, in a fresh process without training data.
        rescore_detail: why a declared second scoring gave no value, or "".
        peak_memory_bytes: peak resident memory of the process tree.
        survivors: processes that outlived the script.
    """

    seed: int
    outcome: str
    detail: str
    machine_lacks: str
    val_bpb: Fact[float]
    val_loss: Fact[float]
    steps: Fact[int]
    step_milliseconds: Fact[float]
    startup_seconds: Fact[float]
    train_seconds: Fact[float]
    eval_seconds: Fact[float]
    model_bytes: Fact[int]
    artifact_bytes: Fact[int]
    all_code_bytes: Fact[int]
    logged_bytes: Fact[int]
    artifact_sha256: Fact[str]
    repacked: Fact[bool]
    repack_detail: str
    rescored_val_bpb: Fact[float]
    rescore_detail: str
    peak_memory_bytes: Fact[int]
    survivors: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One column over the seeds that ended well; `std` is the sample deviation, None for a single seed."""

    column: str
    count: int
    mean: float
    std: float | None
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class ReproductionFacts:
    """A whole reproduction and the conditions under which it ran.

    Attributes:
        folder_sha256: hash of the submission's code files when it ran; other code now makes it stale.
        stale: True when the code was changed since.
        comparable: Located(True) when data, steps and limits equal the claim's; Located(False) when the run was
            shrunk or used other data, so that values must not be compared with the claim.
        differences: how the conditions differ from the claim's, one clause each.
        train_limit_seconds: wallclock limit given to training.
        eval_limit_seconds: wallclock limit given to evaluation.
        isolation: isolation level in force (`L1`...).
        seeds: one entry for each seed, in order.
        summary: mean, deviation and range of each column over the seeds that ended well.
    """

    folder_sha256: str
    stale: bool
    comparable: Fact[bool]
    differences: tuple[str, ...]
    train_limit_seconds: Fact[float]
    eval_limit_seconds: Fact[float]
    isolation: str
    seeds: tuple[SeedMeasurement, ...]
    summary: tuple[Aggregate, ...]


COLUMNS: Final[tuple[tuple[str, Callable[[SeedMeasurement], Fact[float]]], ...]] = (
    ("val_bpb", lambda seed: seed.val_bpb),
    ("val_loss", lambda seed: seed.val_loss),
    ("steps", lambda seed: seed.steps),
    ("step_milliseconds", lambda seed: seed.step_milliseconds),
    ("train_seconds", lambda seed: seed.train_seconds),
    ("eval_seconds", lambda seed: seed.eval_seconds),
    ("artifact_bytes", lambda seed: seed.artifact_bytes),
    ("peak_memory_bytes", lambda seed: seed.peak_memory_bytes),
)


def read(directory: Path, folder: Folder) -> ReproductionFacts:
    """Read an evidence directory as facts about a folder.

    Raises:
        HarnessError: the directory holds no evidence, or a document of it is broken.
    """
    found = evidence.read(directory)
    plan = found.plan
    at = Location(evidence.PLAN_NAME, pointer="/settings")
    seeds = tuple(_measurement(run) for run in found.runs)
    return ReproductionFacts(
        folder_sha256=plan["folder_sha256"],
        stale=evidence.code_sha256(evidence.code_files(folder)) != plan["folder_sha256"],
        comparable=_comparable(plan),
        differences=tuple(plan["differences"]),
        train_limit_seconds=Located(plan["settings"]["train_limit_seconds"], at),
        eval_limit_seconds=Located(plan["settings"]["eval_limit_seconds"], at),
        isolation=plan["isolation"],
        seeds=seeds,
        summary=summarize(seeds),
    )


def summarize(seeds: Sequence[SeedMeasurement]) -> tuple[Aggregate, ...]:
    """Aggregate each column over the seeds whose outcome is ok; columns without any value are left out."""
    ended_well = [seed for seed in seeds if seed.outcome == "ok"]
    found = (_aggregate(name, [fact_of(seed) for seed in ended_well]) for name, fact_of in COLUMNS)
    return tuple(aggregate for aggregate in found if aggregate is not None)


def _aggregate(column: str, facts: Sequence[Fact[float]]) -> Aggregate | None:
    values = [float(fact.value) for fact in facts if isinstance(fact, Located)]
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Aggregate(column, len(values), statistics.fmean(values), std, min(values), max(values))


def _comparable(plan: Mapping[str, Any]) -> Fact[bool]:
    at = Location(evidence.PLAN_NAME, pointer="/differences")
    if plan["differences"]:
        return Located(value=False, location=at)
    if plan["unknown"]:
        return Missing(plan["unknown"], at)
    return Located(value=True, location=at)


def _measurement(run: Mapping[str, Any]) -> SeedMeasurement:
    directory = f"seed-{run['seed']}"
    path = f"{directory}/{evidence.RUN_NAME}"
    score = Location(f"{directory}/{evidence.LOG_NAME}", line=(run["headline"] or {}).get("line"))
    number = _reader(run, path)
    size = _sizer(run, path)
    return SeedMeasurement(
        seed=run["seed"],
        outcome=run["outcome"],
        detail=run["detail"],
        machine_lacks=run["machine_lacks"],
        val_bpb=_at(number("val_bpb", "the log holds no final score"), score),
        val_loss=_at(number("val_loss", "the final score states no loss"), score),
        steps=number("steps", "the log holds no training step"),
        step_milliseconds=number("step_milliseconds", "the log holds no training step"),
        startup_seconds=number("startup_seconds", "the log holds no training step"),
        train_seconds=number("train_seconds", "the log holds no training step"),
        eval_seconds=number("eval_seconds", "the log holds no final score after training"),
        model_bytes=size(0),
        artifact_bytes=size(run["code_bytes"]),
        all_code_bytes=size(run["all_code_bytes"]),
        logged_bytes=number("logged_total_bytes", "the log states no artifact size"),
        artifact_sha256=_artifact_sha256(run, path),
        repacked=_repacked(run["repack"], path),
        repack_detail=run["repack"]["detail"] if run["repack"]["outcome"] in {"different", "failed"} else "",
        rescored_val_bpb=_rescored(run["rescore"], directory),
        rescore_detail=run["rescore"]["detail"] if run["rescore"]["outcome"] == "failed" else "",
        peak_memory_bytes=number("peak_memory_bytes", "not measured"),
        survivors=run["survivors"],
    )


def _reader(run: Mapping[str, Any], path: str) -> Callable[[str, str], Fact[Any]]:
    """A function from a key and the reason for its absence to the fact."""

    def read_number(key: str, reason: str) -> Fact[Any]:
        location = Location(path, pointer=f"/{key}")
        return Missing(reason, location) if run[key] is None else Located(run[key], location)

    return read_number


def _sizer(run: Mapping[str, Any], path: str) -> Callable[[int], Fact[int]]:
    """A function from code bytes to code plus model bytes."""

    def size(code_bytes: int) -> Fact[int]:
        location = Location(path, pointer="/artifact")
        if run["artifact"] is None:
            return Missing("no artifact was found", location)
        return Located(code_bytes + run["artifact"]["bytes"], location)

    return size


def _at(fact: Fact[float], location: Location) -> Fact[float]:
    return Located(fact.value, location) if isinstance(fact, Located) else fact


def _artifact_sha256(run: Mapping[str, Any], path: str) -> Fact[str]:
    location = Location(path, pointer="/artifact/sha256")
    if run["artifact"] is None:
        return Missing("no artifact was found", location)
    return Located(run["artifact"]["sha256"], location)


def _repacked(repack: Mapping[str, Any], path: str) -> Fact[bool]:
    location = Location(path, pointer="/repack")
    if repack["outcome"] in {"not_declared", "skipped"}:
        return Missing(repack["detail"], location)
    return Located(repack["outcome"] == "same", location)


def _rescored(rescore: Mapping[str, Any], directory: str) -> Fact[float]:
    location = Location(f"{directory}/{evidence.RESCORE_LOG_NAME}", line=rescore["line"])
    if rescore["val_bpb"] is None:
        return Missing(rescore["detail"], location)
    return Located(rescore["val_bpb"], location)
