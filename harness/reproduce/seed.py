"""Run one seed: train and evaluate in a clean directory, then rebuild what it left."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from harness.model import HarnessError
from harness.reproduce import artifact, dataset, environment, measure, outcome
from harness.reproduce.artifact import Artifact
from harness.reproduce.dataset import Dataset
from harness.reproduce.executors.base import Caps, Ending, Executor, Job
from harness.reproduce.measure import Measured
from harness.reproduce.outcome import Failure
from harness.reproduce.phases import Phases, TrainingWatch
from harness.reproduce.plan import Plan
from harness.reproduce.progress import Progress
from harness.sources import evidence

WORK: Final = "train"
HOME: Final = "home"
SCRATCH: Final = "tmp"
DATA: Final = "data"


@dataclass(frozen=True, slots=True)
class Machine:
    """What seeds run on.

    Attributes:
        executor: how jobs are run.
        caps: bounds on each job.
        caller: the environment of this process, of which little is passed on.
        accelerators: how many CUDA devices there are.
    """

    executor: Executor
    caps: Caps
    caller: Mapping[str, str]
    accelerators: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A seed after its first run; `data` is the view of the data that it was given."""

    data: Dataset | None
    command: tuple[str, ...]
    ending: Ending
    phases: Phases
    measured: Measured
    artifact: Artifact | None
    failure: Failure | None


def fresh_directory(plan: Plan, seed: int, directory: Path) -> Path:
    """A seed's directory without anything of an earlier, unfinished run."""
    target = evidence.seed_directory(directory, seed)
    if target.exists():
        shutil.rmtree(target)
    for name in (HOME, SCRATCH):
        (target / name).mkdir(parents=True)
    copy_code(plan, target / WORK)
    return target


def copy_code(plan: Plan, target: Path) -> None:
    """Copy the submission's code files: nothing ever runs inside the submission's folder.

    Raises:
        HarnessError: a file was changed after the plan was made.
    """
    for file in plan.code:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plan.folder.read(file.path, evidence.CODE_FILE_CAP_BYTES))
        if artifact.identify(target, path).sha256 != file.sha256:
            raise HarnessError(f"{plan.folder.root / file.path}: changed while it was being reproduced; start again")


def variables(plan: Plan, seed: int, target: Path, caller: Mapping[str, str]) -> dict[str, str]:
    """The environment of a seed's runs, data apart."""
    found = environment.clean(caller, target / HOME, target / SCRATCH)
    if plan.processes is not None:
        found["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // plan.processes))
    return found | dict(plan.environment) | {"SEED": str(seed), "RUN_ID": f"seed{seed}"}


def command(plan: Plan) -> tuple[str, ...]:
    """How the script is started, in the directory that holds it."""
    if plan.processes is None:
        return (sys.executable, plan.script)
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={plan.processes}")
    return (sys.executable, *torchrun, plan.script)


def train(plan: Plan, seed: int, target: Path, machine: Machine, progress: Progress) -> Trained:
    """The first run of a seed, and what it left."""
    data = None if plan.data is None else dataset.whole(plan.data, target / DATA)
    job = Job(
        command=command(plan),
        directory=target / WORK,
        environment=variables(plan, seed, target, machine.caller) | (data.environment(target / WORK) if data else {}),
        log=target / evidence.LOG_NAME,
        times=target / "train.times",
        caps=machine.caps,
        data=None if data is None else target / DATA,
    )
    watch = TrainingWatch(seed, plan.limits, progress.update)
    ending = machine.executor.execute(job, watch)
    measured = measure.read(job.log)
    shipped = frozenset(file.path for file in plan.code)
    left = artifact.find(job.directory, plan.declared.artifact, shipped, measured.model_bytes)
    failure = outcome.of_process(ending, own_modules(plan), machine.accelerators) or outcome.of_score(measured.val_bpb)
    if failure is None and left is None:
        failure = Failure("no_artifact", f"no file {plan.declared.artifact or 'that may be the artifact'} was left")
    return Trained(data, job.command, ending, watch.phases(), measured, left, failure)


def own_modules(plan: Plan) -> frozenset[str]:
    """First parts of the names of modules that the submission ships."""
    paths = [PurePosixPath(file.path) for file in plan.code if file.path.endswith(".py")]
    return frozenset(path.parts[0].removesuffix(".py") for path in paths) | {path.stem for path in paths}


def document(plan: Plan, seed: int, trained: Trained, rebuilt: Mapping[str, Any]) -> dict[str, Any]:
    """A seed's `run.json`."""
    ending, phases, measured, failure = trained.ending, trained.phases, trained.measured, trained.failure
    usable = failure is None or failure.outcome == "no_artifact"
    left = trained.artifact
    sizes = {file.path: file.size_bytes for file in plan.code}
    return {
        "schema": "run/1",
        "plan_sha256": evidence.canonical_sha256(plan.settings()),
        "seed": seed,
        "outcome": "ok" if failure is None else failure.outcome,
        "detail": "" if failure is None else failure.detail,
        "machine_lacks": "" if failure is None else failure.machine_lacks,
        "command": ["python", *trained.command[1:]],
        "exit_code": ending.exit_code,
        "killed": ending.killed,
        "seconds": _rounded(ending.seconds),
        "startup_seconds": _rounded(phases.train_start),
        "train_seconds": _rounded(phases.train_seconds),
        "pack_seconds": _rounded(phases.pack_seconds),
        "eval_seconds": _rounded(phases.eval_seconds),
        "steps": phases.last_step,
        "step_milliseconds": _rounded(phases.step_milliseconds),
        "val_bpb": measured.val_bpb if usable else None,
        "val_loss": measured.val_loss if usable else None,
        "headline": {"label": measured.label, "line": measured.line} if measured.line else None,
        "artifact": None if left is None else {"path": left.path, "bytes": left.size_bytes, "sha256": left.sha256},
        "code_bytes": sizes[plan.script],
        "all_code_bytes": sum(sizes.values()),
        "logged_total_bytes": measured.total_bytes,
        "peak_memory_bytes": ending.peak_memory_bytes,
        "survivors": ending.survivors,
        **rebuilt,
    }


def _rounded(value: float | None) -> float | None:
    """Milliseconds are as fine as the arrival of a line is known."""
    return None if value is None else round(max(0.0, value), 3)
