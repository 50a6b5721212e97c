"""The submission's programs in the sandbox: the predictor, and its own evaluation of the same text.

The predictor sees its code, its artifact and its tokenizer. No text: neither the split nor the package that the demo
corpus is made of. Its own evaluation sees the text as a validation split, since it is asked what it claims.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.certify.conversation import Conversation, PredictorError
from harness.certify.text import Text
from harness.model import HarnessError
from harness.probe.world import write_shard
from harness.report.plain import plain
from harness.reproduce import measure
from harness.reproduce.measure import Measured
from harness.sandbox import runner
from harness.sandbox.backend import Sandbox
from harness.sandbox.job import MIB, Job, Limits, Outcome, View
from harness.sandbox.runtime import interpreter

WORK: Final = "/scratch/work"
CODE: Final = "/predictor"
TOKENIZER: Final = f"{WORK}/tokenizer.model"
DATA: Final = f"{WORK}/validation"
SHARD: Final = "fineweb_val_000000.bin"
# The demo corpus is made of the texts in it.
TEXTS: Final = ("botocore",)
MEMORY_BYTES: Final = 6_000 * MIB
TAIL_CHARACTERS: Final = 300
BASE: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "RUN_ID": "certify",
}


@dataclass(frozen=True, slots=True)
class Program:
    """A submission's program and what it needs.

    Attributes:
        code: path of each code file in the working folder, and where it lies.
        script: the one that is started.
        artifact: path of the compressed model in the working folder, and where it lies.
        tokenizer: the tokenizer's model.
        environment: settings.
    """

    code: Mapping[str, Path]
    script: str
    artifact: tuple[str, Path]
    tokenizer: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where programs run.

    Attributes:
        sandbox: what `establish` gave.
        directory: a new folder, for the runs.
        seconds: time that each may take.
        threads: that it computes with: as many when encoding as when decoding.
    """

    sandbox: Sandbox
    directory: Path
    seconds: float
    threads: int


def converse(program: Program, conversation: Conversation, name: str, place: Place) -> Outcome:
    """Tell a predictor a text to its end.

    Raises:
        PredictorError: it does not keep to the protocol, or ends early.
    """
    job = _job(program, name, place, {}, ())
    limits = replace(job.limits, channel_bytes=conversation.limit_bytes)
    job = replace(job, limits=limits, channel=True)
    try:
        outcome = runner.run(job, place.directory / name, sandbox=place.sandbox, partner=conversation)
    except PredictorError as error:
        raise PredictorError(f"{error}{_said(place.directory / name / runner.OUTPUT)}") from error
    if not conversation.complete:
        told = f"the predictor ended after {conversation.told:,} tokens: {outcome.reason}"
        raise PredictorError(f"{told}{_said(outcome.output)}")
    if outcome.ended != "exit" or outcome.returncode != 0:
        raise PredictorError(f"the predictor did not end well: {outcome.reason}{_said(outcome.output)}")
    return outcome


def evaluate(program: Program, text: Text, place: Place) -> tuple[Measured, Outcome]:
    """Let the submission score the text as its validation split.

    Raises:
        HarnessError: it fails, or prints no score.
    """
    data = place.directory / "data"
    data.mkdir()
    write_shard(data / SHARD, text.tokens)
    variables = {"DATA_PATH": DATA}
    job = _job(program, "evaluation", place, variables, (View(data / SHARD, f"{DATA}/{SHARD}"),))
    outcome = runner.run(job, place.directory / "evaluation", sandbox=place.sandbox)
    measured = measure.read(outcome.output)
    if outcome.ended != "exit" or outcome.returncode != 0 or measured.val_bpb is None:
        told = outcome.reason if outcome.returncode != 0 else "it printed no score"
        raise HarnessError(f"the submission's own evaluation of the text failed: {told}{_said(outcome.output)}")
    return measured, outcome


def _job(program: Program, name: str, place: Place, variables: Mapping[str, str], views: tuple[View, ...]) -> Job:
    """A program over copies of its files: where there are no namespaces it sees their real paths."""
    stage = place.directory / f"{name}-files"
    staged = [_staged(stage, path, source) for path, source in program.code.items()]
    given = tuple(View(path, f"{WORK}/{path.relative_to(stage).as_posix()}") for path in staged)
    artifact = View(program.artifact[1].resolve(), f"{WORK}/{program.artifact[0]}")
    tokenizer = View(program.tokenizer.resolve(), TOKENIZER)
    found = importlib.util.find_spec
    hidden = [Path(where) for one in TEXTS if (spec := found(one)) for where in spec.submodule_search_locations or ()]
    threads = {"OMP_NUM_THREADS": str(place.threads), "TOKENIZER_PATH": TOKENIZER, "PYTHONPATH": CODE}
    return Job(
        argv=(interpreter(), f"{WORK}/{program.script}"),
        views=(View(stage, CODE), *given, artifact, tokenizer, *views),
        workdir=WORK,
        environment={**BASE, **threads, **program.environment, **variables},
        limits=Limits(
            memory_bytes=MEMORY_BYTES,
            processes=48,
            disk_bytes=1_000 * MIB,
            file_bytes=500 * MIB,
            cpu_s=place.seconds * (os.cpu_count() or 1),
            wall_s=place.seconds,
            output_bytes=16 * MIB,
        ),
        hidden=tuple(hidden),
    )


def _staged(stage: Path, path: str, source: Path) -> Path:
    target = stage / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def _said(output: Path) -> str:
    """The end of what it printed, as a remark."""
    lines = output.read_bytes()[-4000:].decode("utf-8", "replace").split("\n") if output.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f" (it said: {plain(last.strip())[:TAIL_CHARACTERS]})" if last else ""
