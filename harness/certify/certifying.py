"""One certificate: encode, decode in a fresh process, ask the submission for its own score, compare."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from harness.certify import certificate, session
from harness.certify import text as texts
from harness.certify.certificate import Proof
from harness.certify.coder import Coder, Decoder, Encoder
from harness.certify.conversation import Conversation, PredictorError
from harness.certify.session import Place, Program
from harness.model import HarnessError
from harness.reproduce import artifact
from harness.reproduce.dataset import Dataset
from harness.reproduce.plan import Plan, versions
from harness.sandbox import runner
from harness.sandbox.backend import Sandbox
from harness.sandbox.levels import Level

PREDICTOR: Final = "predictor.py"
STREAM_NAME: Final = "text.stream"
PHASES: Final = ("encode", "decode", "evaluation")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        plan: how the submission is run.
        artifact: its compressed model; None looks for it in the folder.
        predictor: a script that predicts instead of the folder's own, or None.
        settings: of the predictor, beside those that are declared.
        byte_count: bytes of text, 0 when the tokens are given.
        token_count: tokens of text, 0 when the bytes are given.
        seconds: time for each of the programs.
        threads: that each of them computes with.
    """

    plan: Plan
    artifact: Path | None
    predictor: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    byte_count: int = 0
    token_count: int = 0
    seconds: float = 1800.0
    threads: int = os.cpu_count() or 1


def certify(request: Request, directory: Path, sandbox: Sandbox, say: Callable[[str], None]) -> dict[str, Any]:
    """Make the certificate; the compressed text and what the programs printed go into `directory`.

    Raises:
        HarnessError: there is no data, text, artifact or predictor to begin with.
    """
    data = _data(request.plan)
    program = predictor(request)
    text = texts.choose(data.shards, _tokenizer(data), byte_count=request.byte_count, token_count=request.token_count)
    say(f"{text.tokens.size:,} tokens, {text.byte_count:,} bytes of {data.name}; predicted by {program.script}")
    directory.mkdir(parents=True, exist_ok=True)
    proof = Proof(text)
    with tempfile.TemporaryDirectory(prefix="harness-certify-") as name:
        place = Place(sandbox, Path(name), request.seconds, request.threads)
        try:
            _prove(proof, program, directory / STREAM_NAME, place, say)
            _ask(proof, request.plan, program, place, say)
        except PredictorError as error:
            proof.problem = str(error)
        finally:
            _keep_logs(place.directory, directory)
    return certificate.document(proof, _named(request, program, data, sandbox))


def _prove(proof: Proof, program: Program, stream: Path, place: Place, say: Callable[[str], None]) -> None:
    """Encode and decode.

    Raises:
        PredictorError: the predictor is refused.
    """
    text = proof.text
    encoder = Encoder(text.tokens[1:])
    encoding = _converse(proof, program, (int(text.tokens[0]), text.tokens.size, encoder), place, say)
    proof.stream, proof.coded_bits, proof.nats = encoder.stream(), encoding.coded_bits, encoding.nats
    stream.write_bytes(texts.stream_file(text, proof.stream))
    # From here to the comparison nothing but the file and the artifact is used.
    count, first, payload = texts.read_stream(stream.read_bytes())
    decoder = Decoder(payload)
    _converse(proof, program, (first, count, decoder), place, say)
    proof.decoded = [first, *decoder.tokens]
    if proof.difference is None and text.normalized is not None:
        proof.same_bytes = texts.decoded_bytes(proof.decoded, program.tokenizer) == text.normalized


def _converse(
    proof: Proof, program: Program, told: tuple[int, int, Coder], place: Place, say: Callable[[str], None]
) -> Conversation:
    first, count, coder = told
    phase = PHASES[0] if isinstance(coder, Encoder) else PHASES[1]
    vocabulary = proof.text.vocabulary
    talk = Conversation(first, count, vocabulary, coder, lambda done: say(f"{phase}: {done:,} of {count:,} tokens"))
    with _timed(proof, phase):
        session.converse(program, talk, phase, place)
    return talk


def _ask(proof: Proof, plan: Plan, program: Program, place: Place, say: Callable[[str], None]) -> None:
    """Let the submission's own script score the text."""
    if plan.declared.evaluate is None:
        proof.unclaimed = "submission.json declares no settings that score an artifact (reproduction.evaluate)"
        return
    say("evaluation: the submission's own score of the same text")
    settings = {**plan.environment, **plan.declared.evaluate}
    own = replace(program, code=_code(plan), script=plan.script, environment=settings)
    try:
        with _timed(proof, PHASES[2]):
            measured, _ = session.evaluate(own, proof.text, place)
    except HarnessError as error:
        proof.unclaimed = str(error)
        return
    claimed = measured.val_bpb
    if claimed is None or not math.isfinite(claimed) or claimed <= 0.0:
        proof.unclaimed = f"the submission's own score of the text is {claimed} (line {measured.line} of its log)"
        return
    proof.claimed_bpb = claimed
    proof.claim = {"label": measured.label, "line": measured.line}


def predictor(request: Request) -> Program:
    """The program that predicts: the one given, else what the folder declares, else its `predictor.py`.

    Raises:
        HarnessError: there is none, or no artifact.
    """
    plan = request.plan
    data, declared = _data(plan), plan.declared
    found = _artifact(request)
    code, script, settings = _code(plan), plan.script, dict(plan.environment) | dict(declared.serve or {})
    if request.predictor is not None:
        if not request.predictor.is_file():
            raise HarnessError(f"{request.predictor}: no such script")
        code, script = {request.predictor.name: request.predictor}, request.predictor.name
    elif declared.serve is None and PREDICTOR in code:
        script = PREDICTOR
    elif declared.serve is None:
        raise HarnessError(
            f"{plan.folder.root}: nothing in it predicts: no `serve` in submission.json#/reproduction and no "
            f"{PREDICTOR} (docs/certify.md); or name a script with --predictor"
        )
    return Program(code, script, found, _tokenizer(data), settings | dict(request.settings))


def _artifact(request: Request) -> tuple[str, Path]:
    """Where the working folder has the compressed model, and where it lies."""
    plan, path = request.plan, request.artifact
    declared, root = plan.declared.artifact, plan.folder.root
    if path is None:
        shipped = frozenset(file.path for file in plan.code)
        found = artifact.find(root, declared, shipped, None)
        if found is None:
            raise HarnessError(
                f"{root}: no compressed model in it; give it as --artifact FILE "
                "(`harness reproduce` leaves it in its evidence, seed*/train/)"
            )
        path = root / found.path
    if not path.is_file():
        raise HarnessError(f"{path}: no such artifact")
    return (declared if declared and not set(declared) & set("*?[") else path.name), path


def _code(plan: Plan) -> dict[str, Path]:
    return {file.path: plan.folder.root / file.path for file in plan.code}


def _data(plan: Plan) -> Dataset:
    if plan.data is None:
        raise HarnessError(f"{plan.folder.root}: which data its score is about is not declared: give it as --data DIR")
    return plan.data


def _tokenizer(data: Dataset) -> Path:
    if data.tokenizer is None:
        raise HarnessError(f"{data.shards}: no tokenizer model beside it")
    return data.tokenizer


@contextlib.contextmanager
def _timed(proof: Proof, phase: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        proof.seconds[phase] = time.monotonic() - start


def _keep_logs(runs: Path, directory: Path) -> None:
    for phase in PHASES:
        output = runs / phase / runner.OUTPUT
        if output.exists():
            shutil.copyfile(output, directory / f"{phase}.log")


def _named(request: Request, program: Program, data: Dataset, sandbox: Sandbox) -> dict[str, Any]:
    """Who and where."""
    plan = request.plan
    held = artifact.identify(program.artifact[1].parent, program.artifact[1])
    hidden = list(session.TEXTS) if sandbox.level > Level.L1 else []
    known = [artifact.identify(path.parent, path) for path in program.code.values()]
    return {
        "submission": {
            "folder": plan.folder.name,
            "code": [{"path": file.path, "bytes": file.size_bytes, "sha256": file.sha256} for file in plan.code],
            "artifact": {"path": program.artifact[0], "bytes": held.size_bytes, "sha256": held.sha256},
        },
        "predictor": {
            "script": program.script,
            "own": request.predictor is None,
            "environment": dict(program.environment),
            "code": [
                {"path": path, "bytes": file.size_bytes, "sha256": file.sha256}
                for path, file in zip(program.code, known, strict=True)
            ],
        },
        "text": {
            "dataset": data.name,
            "tokenizer_sha256": artifact.identify(program.tokenizer.parent, program.tokenizer).sha256,
        },
        "isolation": {"level": str(sandbox.level), "backend": sandbox.backend.name, "hidden": hidden},
        "versions": {**versions(), "constriction": _version("constriction"), "threads": str(request.threads)},
    }


def _version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)
