"""What one line of a training log can say: a small frozen event for each kind of statement.

Events carry the number as printed; nothing here decides which score is the headline or which size counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

# Reason of a `StopEvent` that is one line about the whole training, and label of a wrapper's result.
SUMMARY: Final = "summary"
RESULT_LABEL: Final = "[RESULT]"


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A training step or a validation during training; `iterations` is the number planned, where printed."""

    line: int
    step: int
    iterations: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    train_milliseconds: float | None = None
    step_milliseconds: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class StopEvent:
    """Training ended; `train_milliseconds` is exact, unlike minutes on step lines.

    `reason` says why it stopped before the planned iterations; `SUMMARY` where a line only sums training up.
    """

    line: int
    reason: str
    step: int | None
    train_milliseconds: float | None


@dataclass(frozen=True, slots=True)
class ResumeEvent:
    """Training goes on from a checkpoint made after `step`, with the time counted until then."""

    line: int
    step: int
    train_milliseconds: float | None


@dataclass(frozen=True, slots=True)
class ScoreEvent:
    """A named evaluation.

    Attributes:
        line: 1-based line.
        label: the words before the numbers, as printed.
        val_loss: nats per token; None where the line has none; may be NaN.
        val_bpb: bits per byte; may be NaN.
        digits: decimals printed of `val_bpb`.
        loss_digits: decimals printed of `val_loss`.
        eval_milliseconds: duration, where the line has it.
    """

    line: int
    label: str
    val_loss: float | None
    val_bpb: float
    digits: int
    loss_digits: int
    eval_milliseconds: float | None


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """An evaluation under way: `done` of `total` units, with the running value. Never a score."""

    line: int
    phase: str
    done: int
    total: int
    running_bpb: float | None


@dataclass(frozen=True, slots=True)
class SizeEvent:
    """A size in bytes.

    Attributes:
        line: 1-based line.
        kind: `model` (compressed), `raw_model`, `code`, `compressed_code`, `total`, or `unlabelled_total` where the
            line does not say whether the compressed or the raw model is meant.
        label: the format named on the line (`int8+zlib`), or "".
        size_bytes: the number.
    """

    line: int
    kind: str
    label: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SeedEvent:
    """The seed of the run."""

    line: int
    seed: int


@dataclass(frozen=True, slots=True)
class SeedMention:
    """A seed among other words: `=== Seed 42 ===`, `SEED=42 torchrun ...`. It may be another run's."""

    line: int
    seed: int


@dataclass(frozen=True, slots=True)
class CountEvent:
    """A count of the run: `parameters`, `world_size`, `val_tokens` or `train_shards`."""

    line: int
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class ConfigEvent:
    """One logged hyperparameter; keys are in lower case, values as printed."""

    line: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """A timed phase outside training steps, for example `ttt_lora:compile warmup`."""

    line: int
    name: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class CoverageEvent:
    """What an evaluation announces to score: `count` windows, chunks or documents; `tokens_each` is 0 for documents."""

    line: int
    unit: str
    count: int
    tokens_each: int


@dataclass(frozen=True, slots=True)
class AnnouncedEvent:
    """Work that begins here (`GPTQ:collecting Hessians from calibration data...`); `text` is the line."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """One row of the driver's table of devices."""

    line: int
    name: str


@dataclass(frozen=True, slots=True)
class VersionEvent:
    """A version of the software that ran: `python` or `pytorch`."""

    line: int
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class CrashEvent:
    """A line that tells of an error: a traceback, a killed process, memory that ran out."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """The script's own source, embedded in the log.

    Attributes:
        line: the line that ended it (the separator, or the log line that interrupted it).
        first_line: its first line.
        sha256: hash of the newline-normalized text; "" when it was interrupted and is therefore incomplete.
        size_bytes: bytes of the normalized text.
    """

    line: int
    first_line: int
    sha256: str
    size_bytes: int


Event: TypeAlias = (
    StepEvent
    | StopEvent
    | ResumeEvent
    | ScoreEvent
    | ProgressEvent
    | SizeEvent
    | SeedEvent
    | SeedMention
    | CountEvent
    | ConfigEvent
    | PhaseEvent
    | CoverageEvent
    | AnnouncedEvent
    | DeviceEvent
    | VersionEvent
    | CrashEvent
    | SourceEvent
)
