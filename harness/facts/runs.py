"""What the training logs say: one `Run` for each log that holds a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model import Fact, Located, Location, Missing

NO_COMPRESSED_CODE = Missing("the log prints no compressed code size")
NO_SLOWEST_STEP = Missing("the log does not tell how long its slowest steps take")
NO_VALIDATION = Missing("the log prints no validation with loss and bits per byte during training")
NO_NAMED_SEED = Missing("the file name holds no seed")
# Logged hyperparameters that differ between honest runs of one configuration: identity, place, and machine.
RUN_SPECIFIC_KEYS = frozenset(
    """
    seed run_id run_name rank local_rank is_main_process is_master device logfile log_file log_dir log_path
    artifact_dir output_dir out_dir checkpoint_dir save_dir model_path quantized_model_path data_dir data_path
    data_root datasets_dir dataset_dir tokenizer_path tokenizer_meta_path train_files val_files val_bytes_files
    tokenizer_dir cache_dir work_dir hostname pid
    """.split()  # noqa: SIM905 - one word a line would hide the list
)


@dataclass(frozen=True, slots=True)
class Score:
    """One reported evaluation of the whole split.

    Attributes:
        label: as printed (`final_int8_zlib_roundtrip_exact`).
        val_bpb: bits per byte, at its line; `digits` decimals were printed.
        val_loss: nats per token.
        digits: decimals printed of val_bpb.
        loss_digits: decimals printed of val_loss.
        eval_seconds: duration of that evaluation, where printed.
        diagnostic: True for intermediate values (pre-quantization, pre-TTT, running) that are no headline.
    """

    label: str
    val_bpb: Fact[float]
    val_loss: Fact[float]
    digits: int
    loss_digits: int
    eval_seconds: Fact[float]
    diagnostic: bool


@dataclass(frozen=True, slots=True)
class Phase:
    """A timed piece of work outside training steps.

    Attributes:
        name: as printed.
        seconds: its duration.
        location: where it is printed.
        counted: True when it is part of `Run.eval_seconds`.
        kind: evaluation, diagnostic, calibration, artifact, compile, precomputation, loading, sum or other.
    """

    name: str
    seconds: float
    location: Location
    counted: bool
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an evaluation announces to score.

    Attributes:
        unit: `windows`, `chunks`, `documents` or `tokens`.
        count: how many of them.
        tokens_each: targets that each one scores; 0 for documents.
        location: where it is printed.
    """

    unit: str
    count: int
    tokens_each: int
    location: Location


@dataclass(frozen=True, slots=True)
class Run:
    """One training run, from one log.

    Attributes:
        location: the log.
        family: which log grammar matched.
        seed: from the log; from the file name only where the log does not say (then located at the file).
        headline: the score that the submission reports for this run.
        scores: every final score in the log, in order.
        steps: optimizer steps taken.
        iterations: steps planned.
        train_seconds: training time at the last step.
        step_overshoot_seconds: mean duration of one step, to judge an overshoot of the cap.
        eval_seconds: sum of all scored evaluation phases that the log times.
        model_bytes: compressed model.
        code_bytes: code size as logged.
        total_bytes: artifact size as logged (the quantized one, not the raw checkpoint).
        parameters: parameter count.
        world_size: processes.
        val_tokens: targets in the validation split, as logged.
        train_shards: number of training shards, as logged.
        config: logged hyperparameters by lower-case name.
        source: sha256 of the source embedded in the log, newline-normalized; its size is `source_bytes`.
        source_bytes: bytes of the embedded source.
        complete: Located(True) when the log reaches a final metric; Located(False) with a crash line; Missing.
        curve: (step, val_bpb) of the validations during training.
        validation: the last validation during training that prints both loss and bits per byte.
        compressed_code_bytes: code size as logged after compression, where the log has it.
        named_seed: the seed in the log's file name.
        evaluation_only: True when the log scores an artifact and holds no training step.
        concatenated: runs that the log holds one after another: the facts are those of the last finished one, or of the
            last one of the seed where each names its own.
        resumed: steps after which the run went on from a checkpoint, in order: steps and times are those of all parts,
            without what was lost between a checkpoint and the end of its part.
        sha256: hash of the log file, to recognise a copy under another name.
        phases: every timed phase outside training steps, in order.
        losses: (step, training loss) in nats per token, thinned.
        coverage: what the log's evaluations announce to score, in order.
        versions: versions of Python and PyTorch by lower-case name.
        announced: lines that begin a calibration, timed or not, in order.
        devices: graphics cards that the log lists, in order.
        named_bpb: numbers that the log calls bits per byte, in lines that may be no known score: the last and the
            lowest.
        summed_up: True when the training time is known from a line about the whole training alone, whose scope is not
            told.
        slowest_step_seconds: the mean step of the slowest stretch between two training lines.
    """

    location: Location
    family: str
    seed: Fact[int]
    headline: Fact[Score]
    scores: tuple[Score, ...]
    steps: Fact[int]
    iterations: Fact[int]
    train_seconds: Fact[float]
    step_overshoot_seconds: Fact[float]
    eval_seconds: Fact[float]
    model_bytes: Fact[int]
    code_bytes: Fact[int]
    total_bytes: Fact[int]
    parameters: Fact[int]
    world_size: Fact[int]
    val_tokens: Fact[int]
    train_shards: Fact[int]
    config: Mapping[str, Located[str]]
    source: Fact[str]
    source_bytes: Fact[int]
    complete: Fact[bool]
    curve: tuple[tuple[int, float], ...]
    compressed_code_bytes: Fact[int] = NO_COMPRESSED_CODE
    named_seed: Fact[int] = NO_NAMED_SEED
    evaluation_only: bool = False
    concatenated: int = 1
    resumed: tuple[Located[int], ...] = ()
    sha256: str = ""
    phases: tuple[Phase, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    coverage: tuple[Coverage, ...] = ()
    versions: Mapping[str, Located[str]] = field(default_factory=dict)
    announced: tuple[Located[str], ...] = ()
    devices: tuple[Located[str], ...] = ()
    named_bpb: tuple[Located[float], ...] = ()
    summed_up: bool = False
    slowest_step_seconds: Fact[float] = NO_SLOWEST_STEP
    validation: Fact[Score] = NO_VALIDATION
