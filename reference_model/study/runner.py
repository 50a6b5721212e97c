"""Runs of a study: each in its own process, in an order that spreads the machine's moods, resumable, bounded."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path

import torch

from reference_model.bundle import in_dependency_order, package_texts
from reference_model.study.design import SEEDS, Experiment, StudyError, runs_together
from reference_model.study.results import Result, append_results, read_results
from reference_model.study.work import Work
from reference_model.train import Clock

# A run that takes so much longer than its training is stopped: scoring, and a machine that is busy.
TIMEOUT_S = 900.0
TIMEOUT_FACTOR = 40.0
ERROR_CHARACTERS = 400


@cache
def code_digest() -> str:
    """Digest of every module that a run's numbers can depend on."""
    package = Path(__file__).resolve().parent.parent
    bodies = [module.body for module in in_dependency_order(package_texts(package), "main")]
    own = [(package / "study" / name).read_text(encoding="utf-8") for name in ("design.py", "work.py")]
    return hashlib.sha256("\0".join((*bodies, *own)).encode()).hexdigest()[:12]


def machine_name() -> str:
    """Processor, cores and version of torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


@dataclass(frozen=True)
class Study:
    """What is run, and how.

    Attributes:
        experiments: In the order of the page.
        seeds: How many.
        seconds: Training of a run, in seconds of one core, before an experiment's own multiple.
        data: Folder that `harness data demo` wrote.
        results: File that results are added to.
        workers: Runs beside each other.
        minutes: No run starts after so many.
        say: Told what ended.
        clock: Monotonic seconds.
    """

    experiments: Sequence[Experiment]
    seeds: int
    seconds: float
    data: Path
    results: Path
    workers: int = 1
    minutes: float = float("inf")
    say: Callable[[str], object] = print
    clock: Clock = time.monotonic

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= len(SEEDS):
            raise StudyError(f"--seeds {self.seeds}: there are 1 to {len(SEEDS)}")
        if self.seconds <= 0 or self.workers < 1:
            raise StudyError("--seconds and --workers are above 0")

    def run(self, do: Callable[[Work], list[Result]] | None = None) -> int:
        """Do what is not done yet; returns how many runs failed. `do` replaces the processes and data, for tests.

        Raises:
            StudyError: The results cannot be read, or the data.
        """
        labels = code_digest(), machine_name()
        waiting = list(self.remaining(*labels))
        if do is None:
            check_data(waiting)
        self.say(f"{len(waiting)} runs to do, {self.seconds:g} s of training each before multiples")
        began_s, failed, running = self.clock(), 0, set[Future[list[Result]]]()
        with ThreadPoolExecutor(self.workers) as pool:
            while waiting or running:
                while waiting and len(running) < self.workers and not self.is_late(began_s):
                    work = waiting.pop(0)
                    running.add(pool.submit(do or run_in_process, work))
                if not running:
                    self.say(f"{self.minutes:g} minutes are over: {len(waiting)} runs left for the next time")
                    break
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                failed += sum(self._record(future.result(), *labels) for future in ended)
        return failed

    def is_late(self, began_s: float) -> bool:
        """Whether no further run may start."""
        return self.clock() - began_s >= 60 * self.minutes

    def remaining(self, code: str, machine: str) -> Iterator[Work]:
        """Runs whose results are not there yet, without variants that are."""
        done = {result.key for result in read_results(self.results) if not result.error}
        for work in self.order():
            one = work.experiment
            missing = tuple(
                name
                for name in work.variants
                if (one.name, name, one.declared(name), work.seed, self.seconds, code, machine) not in done
            )
            if missing:
                yield replace(work, variants=missing)

    def order(self) -> Iterator[Work]:
        """Every run: all experiments with the first seed, one variant of each in turn; then with the next seed.

        Runs that are compared thus stand apart in time, and so do the seeds of one variant.
        """
        for seed in SEEDS[: self.seeds]:
            grouped = [[(one, group) for group in runs_together(one)] for one in self.experiments]
            for row in zip_longest(*grouped):
                for experiment, variants in filter(None, row):
                    yield Work(experiment, variants, seed, self.seconds, self.data)

    def _record(self, results: list[Result], code: str, machine: str) -> int:
        """Keep results and tell them; returns how many are of failed runs."""
        kept = [replace(result, code=code, machine=machine) for result in results]
        append_results(self.results, kept)
        for result in kept:
            told = result.error or f"int6 {result.measures['int6_bpb']:.4f} BPB, {result.measures['steps']:.0f} steps"
            self.say(f"{result.experiment}, {result.variant}, seed {result.seed}: {told}")
        return sum(bool(result.error) for result in kept)


def check_data(works: Iterable[Work]) -> None:
    """Open the data of runs before any of them begins, once for each folder; raises StudyError naming it."""
    for work in {(work.data, work.experiment.full_validation): work for work in works}.values():
        work.check_data()


def run_in_process(work: Work) -> list[Result]:
    """Do the work in a process of its own; what goes wrong there becomes results with an error."""
    command = [sys.executable, "-m", "reference_model.study"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    limit_s = TIMEOUT_S + TIMEOUT_FACTOR * work.seconds * work.experiment.budget
    try:
        done = subprocess.run(
            command, env=environ, input=work.to_json(), capture_output=True, text=True, check=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return [result_of(work, name, {}, f"stopped after {limit_s:.0f} s") for name in work.variants]
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip().rpartition("\n")[2][-ERROR_CHARACTERS:] or f"status {error.returncode}"
        return [result_of(work, name, {}, words) for name in work.variants]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [result_of(work, row["variant"], row["measures"]) for row in found]


def result_of(work: Work, variant: str, measures: Mapping[str, float], error: str = "") -> Result:
    """A result without the labels of code and machine."""
    one = work.experiment
    told = one.variant_settings(variant), one.declared(variant)
    return Result(one.name, variant, work.seed, work.seconds, "", "", *told, measures, error)


def chosen(experiments: Iterable[Experiment], names: Sequence[str]) -> list[Experiment]:
    """Those that are named, all without names; raises StudyError for unknown names."""
    known = {experiment.name: experiment for experiment in experiments}
    if unknown := [name for name in names if name not in known]:
        raise StudyError(f"no such experiment: {', '.join(unknown)} (there are {', '.join(known)})")
    return [known[name] for name in names] if names else list(known.values())
