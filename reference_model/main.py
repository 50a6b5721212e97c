"""What the bundled script runs: settings from the environment, train, pack, re-open from disk, score.

Four modes. By default everything. `REPACK_ONLY=1` packs the saved weights again, which gives the same bytes.
`EVAL_ONLY=1` scores an existing artifact and opens no training data. `SERVE_ONLY=1` predicts a text with it, token by
token as they are told, and opens no data at all.

Files, relative to the working directory: `logs/{RUN_ID}.txt` (`.repack.txt`, `.eval.txt` in the other modes),
`final_model.pt` (the averaged float weights that are packed), `final_model.raw.pt` (the last float weights),
`final_model.int{bits}.ptz` (the artifact). With `CHECKPOINT_EVERY=N`, `checkpoint.pt` after every N steps: `RESUME=1`
goes on from it, and the end of the run removes it.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from reference_model.adapters import adapted_layers
from reference_model.artifact import ArtifactError, coding_of
from reference_model.calibrate import Calibrator
from reference_model.checkpoint import Checkpoints, run_identity
from reference_model.codings import CODINGS, missing_packages
from reference_model.config import Config
from reference_model.data import BatchLoader, ShardError, find_shards, load_validation
from reference_model.evalconfig import EvalConfig
from reference_model.evaluate import evaluate, evaluation_name
from reference_model.hooks import audit_hooks
from reference_model.launch import started_worker
from reference_model.metric import ByteTable, load_byte_table
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.quantize import QuantizedTensor, QuantizeError
from reference_model.runlog import (
    RunLog,
    diagnostic_line,
    packing_line,
    reserve_line,
    score_lines,
    size_lines,
    version_lines,
)
from reference_model.scoring import EvalResult, EvalTask
from reference_model.serve import serve_artifact
from reference_model.settings import ConfigError
from reference_model.storage import (
    RunError,
    artifact_path,
    cpu_state,
    load_rounded,
    load_state,
    pack_model,
    raw_path,
    read_whole,
    state_bytes,
    unpack_model,
    write_whole,
)
from reference_model.train import (
    TRAIN_FILES,
    Clock,
    Trainer,
    TrainingError,
    TrainingResult,
    accumulation_steps,
    training_loader,
)
from reference_model.worker import Worker

VALIDATION_FILES = "fineweb_val_*.bin"
TOTAL_CAP_BYTES = 16_000_000
EXIT_FAILED = 1
EXIT_USAGE = 2
RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

Read = TypeVar("Read")


@dataclass(frozen=True)
class Inputs:
    """What scoring needs from disk: the validation tokens and the bytes they stand for."""

    tokens: Tensor
    table: ByteTable

    @classmethod
    def load(cls, config: Config) -> Inputs:
        """Read the validation shards and the tokenizer.

        Raises:
            ConfigError: They cannot be read or do not fit VOCAB_SIZE; the message begins with the variable's name.
        """
        data, vocab_size = config.data, config.model.vocab_size
        table = blaming("TOKENIZER_PATH", lambda: load_byte_table(data.tokenizer_path, vocab_size))
        size, mark = tokenizer_numbers(data.tokenizer_path)
        if size != vocab_size:
            raise ConfigError(f"VOCAB_SIZE: {vocab_size}, but the tokenizer has {size} tokens")
        if config.evaluation.by_document and mark != config.evaluation.bos_id:
            raise ConfigError(f"BOS_ID: {config.evaluation.bos_id}, but the tokenizer begins documents with {mark}")
        tokens = blaming("DATA_PATH", lambda: load_validation(f"{data.data_path}/{VALIDATION_FILES}", vocab_size))
        return cls(tokens, table)


def tokenizer_numbers(path: str) -> tuple[int, int]:
    """Tokens of a SentencePiece model, and the one that begins a document."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=path)
    return model.vocab_size(), model.bos_id()


def blaming(variable: str, read: Callable[[], Read]) -> Read:
    """Call `read`; a value it refuses becomes a ConfigError that begins with the variable's name."""
    try:
        return read()
    except ValueError as error:
        raise ConfigError(f"{variable}: {error}") from error


@dataclass(frozen=True)
class Run:
    """One start of the script: its settings, its place among the processes, its log and clock."""

    config: Config
    worker: Worker
    log: RunLog
    script: Path
    clock: Clock

    def train_and_score(self) -> None:
        """Train, save, pack and score.

        Raises:
            ConfigError: A setting does not fit the data or the number of processes.
            RunError: The submission would be above the cap, or the checkpoint to go on from cannot be used.
        """
        inputs = Inputs.load(self.config)
        loader = blaming("DATA_PATH", lambda: training_loader(self.config, self.worker))
        model = build_model(self.config, self.worker.device)
        shards = len(find_shards(f"{self.config.data.data_path}/{TRAIN_FILES}"))
        self.log.say(f"train_loader:dataset:{Path(self.config.data.data_path).name} train_shards:{shards}")
        self._describe(inputs, model)
        validate = partial(self.score_plain, model, inputs, stride=0) if self._validates else None
        config = replace(self.config, train=self.config.schedule)
        if reserved_s := self.config.train.max_wallclock_seconds - config.train.max_wallclock_seconds:
            self.log.say(reserve_line(reserved_s, config.train.max_wallclock_seconds))
        checkpoints = self._checkpoints()
        trainer = Trainer(model, config, loader, self.worker, self.log, self.clock, validate, checkpoints)
        self._save(model, loader, trainer.run())
        if self.config.evaluation.diagnostics:
            began_s = self.clock()
            scores = self.score_plain(model, inputs, stride=self.config.evaluation.eval_stride)
            self.log.say(diagnostic_line("post_ema", scores, self.clock() - began_s))
        self.repack()
        self._score_artifact(model, inputs)
        if self.worker.rank == 0 and (checkpoints.every or checkpoints.resume):
            checkpoints.remove()

    def _checkpoints(self) -> Checkpoints:
        train, path = self.config.train, Path(self.config.data.checkpoint_path)
        identity = run_identity(self.config, f"{self.config.data.data_path}/{TRAIN_FILES}")
        return Checkpoints(path, train.checkpoint_every, train.resume, identity)

    def repack(self) -> None:
        """Pack the saved weights into the artifact.

        Raises:
            RunError: No saved weights, or the submission would be above the cap.
        """
        if self.worker.rank == 0:
            weights = Path(self.config.data.weights_path)
            rounded = load_rounded(weights) if self.config.quant.method == "gptq" else {}
            began_s = self.clock()
            blob = pack_model(load_state(weights), self.config, rounded)
            self._report_size(blob)
            self.log.say(packing_line(self._quantizer(blob), self.clock() - began_s))
            write_whole(artifact_path(self.config), blob)
        self._wait_for_all()

    def score_only(self) -> None:
        """Score the artifact on disk; training data is never opened."""
        inputs, model = Inputs.load(self.config), build_model(self.config, self.worker.device)
        self._describe(inputs, model)
        self._report_size(read_whole(artifact_path(self.config)))
        self._score_artifact(model, inputs)

    def score_plain(self, model: HymbaLM, inputs: Inputs, *, stride: int) -> tuple[float, float]:
        """Nats per token and bits per byte without test-time training; stride 0 cuts windows side by side."""
        evaluation = replace(self.config.evaluation.untrained(), eval_stride=stride)
        plain = replace(self.config, evaluation=evaluation)
        result = evaluate(evaluation_task(model, inputs, plain, self.worker))
        return result.val_loss, result.val_bpb

    @property
    def _validates(self) -> bool:
        return self.config.evaluation.diagnostics or self.config.train.val_loss_every > 0

    def _save(self, model: HymbaLM, loader: BatchLoader, result: TrainingResult) -> None:
        """Save the last weights and the averaged ones; the model is left with the averaged ones."""
        last, rounded = cpu_state(model), dict[str, QuantizedTensor]()
        model.load_state_dict(result.average, strict=False)
        if self.config.quant.method == "gptq":
            calibrator = Calibrator(model, self.config, loader, self.worker, self.log, self.clock)
            rounded = calibrator.rounded(result.steps, result.train_s)
        if self.worker.rank == 0:
            weights = Path(self.config.data.weights_path)
            write_whole(raw_path(weights), state_bytes(last))
            write_whole(weights, state_bytes(cpu_state(model), rounded))
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        self.worker.all_sum(torch.zeros(1, device=self.worker.device))

    def _describe(self, inputs: Inputs, model: HymbaLM) -> None:
        train, data = self.config.train, self.config.data
        # Scoring alone has no steps to divide.
        scoring = self.config.evaluation.eval_only
        accumulation = 1 if scoring else accumulation_steps(self.config, self.worker.world_size)
        self.log.say(
            f"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={data.tokenizer_path}",
            f"val_loader:shards pattern={data.data_path}/{VALIDATION_FILES} tokens:{inputs.tokens.numel() - 1}",
            f"model_params:{sum(parameter.numel() for parameter in model.parameters())}",
            f"world_size:{self.worker.world_size} grad_accum_steps:{accumulation}",
            f"train_batch_tokens:{train.train_batch_tokens} train_seq_len:{train.train_seq_len} "
            f"iterations:{train.iterations} warmup_steps:{train.warmup_steps} "
            f"max_wallclock_seconds:{train.max_wallclock_seconds:.3f}",
            f"seed:{train.seed}",
        )

    def _report_size(self, artifact: bytes) -> None:
        code_bytes = self.script.stat().st_size
        self.log.say(*size_lines(self._quantizer(artifact), code_bytes, len(artifact)))
        if (total := code_bytes + len(artifact)) > TOTAL_CAP_BYTES:
            raise RunError(f"{total} bytes of code and model, the cap is {TOTAL_CAP_BYTES}")

    def _quantizer(self, artifact: bytes) -> str:
        quant = self.config.quant
        return f"int{quant.bits}+{CODINGS[coding_of(artifact)].label.format(level=quant.zstd_level)}"

    def _score_artifact(self, model: HymbaLM, inputs: Inputs) -> None:
        """Load what is on disk and score it; the last line is the headline."""
        model.load_state_dict(unpack_model(read_whole(artifact_path(self.config)), self.config.model))
        evaluation = self.config.evaluation
        # A run shows what adapting gains; an artifact scored again needs the headline only.
        if not (evaluation.ttt_enabled and evaluation.eval_only):
            self._score(f"final_int{self.config.quant.bits}_roundtrip", model, inputs, evaluation.untrained())
        if evaluation.ttt_enabled:
            self._score("legal_ttt", model, inputs, evaluation)

    def _score(self, label: str, model: HymbaLM, inputs: Inputs, evaluation: EvalConfig) -> None:
        task = evaluation_task(model, inputs, replace(self.config, evaluation=evaluation), self.worker)
        began_s = self.clock()
        result = evaluate(task, partial(self._report_chunk, began_s))
        seconds = self.clock() - began_s
        mode = evaluation_name(task).replace(", ", "+").replace(" ", "_")
        self.log.say(*score_lines(label, (result.val_loss, result.val_bpb), mode, seconds))

    def _report_chunk(self, began_s: float, chunk: int, chunks: int, result: EvalResult) -> None:
        if not self.log.enabled:
            return
        # The first tokens may stand for no text, as the mark of a document does.
        bpb = result.val_bpb if result.bytes else math.nan
        self.log.say(f"  ttt_chunk [{chunk}/{chunks}] bpb={bpb:.6f} time={self.clock() - began_s:.1f}s")


def evaluation_task(model: HymbaLM, inputs: Inputs, config: Config, worker: Worker) -> EvalTask:
    """The model on the validation tokens, scored as the settings say."""
    hooks = audit_hooks()
    return EvalTask(model, inputs.tokens, inputs.table, config.evaluation, config.eval_seq_len, worker, hooks)


def build_model(config: Config, device: str) -> HymbaLM:
    """A fresh model whose weights depend on the seed and the settings alone."""
    torch.manual_seed(config.train.seed)
    return HymbaLM(config.model).to(device)


def read_config(environ: Mapping[str, str], preset: str) -> Config:
    """The preset as the environment changes it.

    Raises:
        ConfigError: A value is out of range, or two exclude each other; the message begins with the variable's name.
    """
    config = Config.from_environment(environ, PRESETS[preset])
    evaluation = config.evaluation
    modes = {
        "EVAL_ONLY": evaluation.eval_only,
        "REPACK_ONLY": evaluation.repack_only,
        "SERVE_ONLY": evaluation.serve_only,
        "RESUME": config.train.resume,
    }
    if len(chosen := [name for name, wanted in modes.items() if wanted]) > 1:
        raise ConfigError(f"{chosen[0]}: excludes {chosen[1]}")
    if not (evaluation.eval_only or evaluation.serve_only) and (missing := missing_packages(config.quant.coder)):
        # Before any training, not after it.
        raise ConfigError(f"COMPRESSOR: {config.quant.coder} needs packages not installed here: {', '.join(missing)}")
    if not RUN_NAME.fullmatch(config.data.run_id):
        raise ConfigError(f"RUN_ID: {config.data.run_id!r} is not a file name of letters, digits, _ . and -")
    # What else a run scores (see `Run.score_plain`) is refused here, not after the training.
    replace(config, evaluation=evaluation.untrained())
    refuse_adapters_of_nothing(config)
    return config


def refuse_adapters_of_nothing(config: Config) -> None:
    """Raise ConfigError where documents are to have adapters and the model no layer for them."""
    evaluation = config.evaluation
    if evaluation.has_adapters:
        with torch.device("meta"):
            model = HymbaLM(config.model)
        frozen = evaluation.ttt_freeze_blocks
        blaming("TTT_LORA_PARTS", lambda: adapted_layers(model, evaluation.lora_parts, frozen))


def main(environ: Mapping[str, str], script: Path, preset: str, *, clock: Clock = time.perf_counter) -> int:
    """Run the script; returns its exit status: 0, 1 when the run failed, 2 when a setting cannot be used.

    Args:
        environ: Settings (see `Config.from_environment`) and torchrun's variables.
        script: The file whose bytes count as code.
        preset: The settings to start from.
        clock: Monotonic seconds.
    """
    try:
        config = read_config(environ, preset)
        with started_worker(environ) as worker:
            if config.evaluation.serve_only:
                serve_artifact(config, worker, environ)
            else:
                start_run(config, worker, script, clock)
    except ConfigError as error:
        sys.stderr.write(f"{script.name}: {error}\n")
        return EXIT_USAGE
    except (RunError, ArtifactError, QuantizeError, ShardError, TrainingError) as error:
        sys.stderr.write(f"{script.name}: {error}\n")
        return EXIT_FAILED
    return 0


def refuse_to_lose_checkpoint(config: Config) -> None:
    """Raise ConfigError where training would begin anew over the checkpoint of a run that has not ended."""
    train, path = config.train, Path(config.data.checkpoint_path)
    if train.checkpoint_every and not train.resume and path.exists():
        raise ConfigError(f"CHECKPOINT_PATH: {path} is there already; RESUME=1 goes on from it")


def start_run(config: Config, worker: Worker, script: Path, clock: Clock) -> None:
    """Open the log and run in the mode that the settings ask for.

    Raises:
        ConfigError: See `refuse_to_lose_checkpoint` and `Run.train_and_score`.
    """
    evaluation = config.evaluation
    mode = ".eval" if evaluation.eval_only else ".repack" if evaluation.repack_only else ""
    if not mode:
        refuse_to_lose_checkpoint(config)
    path = Path("logs") / f"{config.data.run_id}{mode}.txt"
    log = RunLog(path, enabled=worker.rank == 0, goes_on=config.train.resume)
    settings = {name.lower(): value for name, value in config.to_environment().items()}
    log.record_header(settings, script.read_text(encoding="utf-8"), version_lines())
    run = Run(config, worker, log, script, clock)
    if evaluation.eval_only:
        run.score_only()
    elif evaluation.repack_only:
        run.repack()
    else:
        run.train_and_score()
