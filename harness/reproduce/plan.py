"""Decide what will be run before anything runs, and how it differs from what the claim was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.challenge import EVAL_CAP_SECONDS, TRAIN_CAP_SECONDS
from harness.facts.submission import Submission
from harness.model import HarnessError, Located, Value
from harness.reproduce import claimed, dataset, declaration
from harness.reproduce.dataset import Dataset
from harness.reproduce.declaration import Declaration
from harness.reproduce.phases import Limits
from harness.sources import evidence
from harness.sources.evidence import CodeFile
from harness.sources.folder import Folder

DEFAULT_SEED: Final = 1337
DEFAULT_SCRIPT: Final = "train_gpt.py"
# A script without a wallclock limit of its own still may not run for ever.
UNLIMITED_SECONDS: Final = 86_400.0
WALLCLOCK: Final = "MAX_WALLCLOCK_SECONDS"
ITERATIONS: Final = "ITERATIONS"
PACKAGES: Final = ("torch", "numpy", "sentencepiece", "zstandard")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; None where the claim decides.

    Attributes:
        seeds: seeds to run.
        wallclock_seconds: training limit given to the script; 0 for none.
        eval_seconds: evaluation limit.
        startup_seconds: allowed before the first step, compilation included.
        grace_seconds: allowed beyond each limit before the run is ended.
        steps: optimizer steps.
        processes: how many to start with torchrun; None for plain `python`.
        data: data root.
        environment: further settings.
        rebuild: repack and score again.
        demo: makes or checks a demo dataset by name, in the given root if there is one; returns the root, or None when
            it makes no dataset of that name.
    """

    seeds: tuple[int, ...] | None = None
    wallclock_seconds: float | None = None
    eval_seconds: float = EVAL_CAP_SECONDS
    startup_seconds: float = 600.0
    grace_seconds: float = 60.0
    steps: int | None = None
    processes: int | None = None
    data: Path | None = None
    environment: Mapping[str, str] | None = None
    rebuild: bool = True
    demo: Callable[[str, Path | None], Path | None] = lambda _name, _root: None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a reproduction.

    Attributes:
        folder: the submission.
        code: its code files.
        script: the one to start.
        seeds: in order.
        environment: settings of every run, seed and data apart.
        limits: seconds.
        steps: asked for, or None.
        processes: torchrun's number, or None for plain `python`.
        data: the dataset, or None.
        data_sha256: its hash, or "".
        declared: what submission.json declares.
        rebuild: repack and score again.
        differences: how these conditions differ from the claim's.
        unknown: why it cannot be told whether they do, or "".
    """

    folder: Folder
    code: tuple[CodeFile, ...]
    script: str
    seeds: tuple[int, ...]
    environment: Mapping[str, str]
    limits: Limits
    steps: int | None
    processes: int | None
    data: Dataset | None
    data_sha256: str
    declared: Declaration
    rebuild: bool
    differences: tuple[str, ...]
    unknown: str

    def settings(self) -> dict[str, Value]:
        """Everything that decides what a seed's run is, the seed apart, as JSON."""
        declared, limits, data = self.declared, self.limits, self.data
        return {
            "code": [{"path": file.path, "bytes": file.size_bytes, "sha256": file.sha256} for file in self.code],
            "script": self.script,
            "environment": dict(self.environment),
            "train_limit_seconds": limits.train_seconds,
            "eval_limit_seconds": limits.eval_seconds,
            "startup_limit_seconds": limits.startup_seconds,
            "grace_seconds": limits.grace_seconds,
            "steps": self.steps,
            "processes": self.processes or 0,
            "data": None if data is None else {"name": data.name, "sha256": self.data_sha256},
            "artifact": declared.artifact,
            "weights": declared.weights,
            "evaluate": None if declared.evaluate is None else dict(declared.evaluate),
            "repack": None if declared.repack is None else dict(declared.repack),
            "rebuild": self.rebuild,
            "versions": dict(versions()),
        }


def make(folder: Folder, submission: Submission, request: Request) -> Plan:
    """Plan a reproduction of a folder.

    Raises:
        HarnessError: no script, no such data, or a declaration that cannot be used.
    """
    declared = declaration.read(folder)
    code = evidence.code_files(folder)
    data = _data(declared, request)
    asked = dict(request.environment or {})
    base = dict(declared.environment) if declared.script else claimed.environment(submission)
    limit = claimed.wallclock_seconds(submission, base) if request.wallclock_seconds is None else None
    wallclock = limit if request.wallclock_seconds is None else request.wallclock_seconds
    wallclock = TRAIN_CAP_SECONDS if wallclock is None else wallclock
    length = {WALLCLOCK: f"{wallclock:g}"} | ({} if request.steps is None else {ITERATIONS: str(request.steps)})
    differences = _length_differences(submission, base, request) + _other_differences(submission, base, request)
    data_difference, unknown = _data_difference(declared, data)
    return Plan(
        folder=folder,
        code=code,
        script=_script(code, declared, submission),
        seeds=request.seeds or claimed.seeds(submission) or (DEFAULT_SEED,),
        environment=base | asked | length,
        limits=Limits(
            request.startup_seconds, wallclock or UNLIMITED_SECONDS, request.eval_seconds, request.grace_seconds
        ),
        steps=request.steps,
        processes=request.processes,
        data=data,
        data_sha256="" if data is None else data.sha256(),
        declared=declared,
        rebuild=request.rebuild,
        differences=(*differences, *data_difference),
        unknown=unknown,
    )


def versions() -> Mapping[str, str]:
    """Python, the packages that decide numbers, and the machine."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"cores": str(os.cpu_count() or 0)}


def _script(code: tuple[CodeFile, ...], declared: Declaration, submission: Submission) -> str:
    entry = submission.package.entry
    found = entry.value.path if isinstance(entry, Located) else DEFAULT_SCRIPT
    script = declared.script or found
    if script not in {file.path for file in code}:
        raise HarnessError(f"{submission.folder}: no script {script} there to run")
    return script


def _data(declared: Declaration, request: Request) -> Dataset | None:
    name, root = declared.data, request.data
    if name and (root is None or _may_hold(root, name)):
        made = request.demo(name, root)
        root = root if made is None else made
        if root is None:
            raise HarnessError(f"the submission needs the dataset {name}: give its root folder as --data DIR")
        return dataset.locate(root, name)
    # Other data may be given on purpose; the comparison then says so.
    return None if root is None else dataset.locate(root, None)


def _may_hold(root: Path, name: str) -> bool:
    """Whether a root holds the dataset, or is still to be made."""
    return (root / "datasets" / name).is_dir() or not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _length_differences(submission: Submission, base: Mapping[str, str], request: Request) -> list[str]:
    differences: list[str] = []
    limit = claimed.wallclock_seconds(submission, base)
    asked = request.wallclock_seconds
    if asked is not None and asked != limit:
        of_claim = "an unknown limit" if limit is None else f"{limit:g} s"
        differences.append(f"trained for at most {asked:g} s here, {of_claim} for the claim")
    steps = base.get(ITERATIONS)
    if request.steps is not None and str(request.steps) != steps:
        differences.append(f"trained for at most {request.steps} steps by request")
    return differences


def _other_differences(submission: Submission, base: Mapping[str, str], request: Request) -> list[str]:
    changed = [name for name, value in (request.environment or {}).items() if base.get(name) != value]
    differences = [f"{name} set by request" for name in changed]
    processes = claimed.processes(submission)
    running = request.processes or 1
    if processes is not None and processes != running:
        differences.append(f"run by {running} process(es) here, {processes} for the claim")
    return differences


def _data_difference(declared: Declaration, data: Dataset | None) -> tuple[list[str], str]:
    """How the data differs from the claim's, and why that cannot be told."""
    if data is None:
        return ["no data folder was given"], ""
    if not declared.data:
        return [], "the submission does not declare which data its claim is about"
    if data.name != declared.data:
        return [f"run on {data.name}, the claim is about {declared.data}"], ""
    return [], ""
