"""Values of submission.json as facts: the synonyms of each field, and numbers and texts as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from harness.model import Fact, Located, Missing, Value
from harness.sources.folder import shown
from harness.sources.manifest import is_finite_number

T = TypeVar("T")

BPB = (
    "val_bpb",
    "mean_val_bpb",
    "mean_bpb",
    "val_bpb_mean",
    "bpb",
    "score_bpb_mean",
    "three_seed_mean_bpb",
    "val_bpb_3seed_mean",
)
LOSS = ("val_loss", "mean_val_loss", "val_loss_nats", "mean_val_loss_nats", "val_loss_mean")
BPB_STD = (
    "val_bpb_std",
    "std_val_bpb",
    "std_bpb",
    "bpb_std",
    "score_bpb_std",
    "three_seed_std_bpb",
    "val_bpb_3seed_std",
    "val_bpb_std_sample",
)
BYTES = (
    "bytes_total",
    "artifact_bytes",
    "artifact_size_bytes",
    "total_bytes",
    "total_submission_bytes",
    "artifact_bytes_max",
    "artifact_bytes_mean",
    "max_artifact_bytes",
    "artifact_size_bytes_max",
    "artifact_size_bytes_mean",
    "three_seed_max_total_bytes",
)
CODE_BYTES = ("bytes_code", "code_bytes", "code_size_bytes")
STEPS = ("steps", "step_stop", "train_steps", "steps_completed", "stop_step")
TRAIN_TIME = (
    "train_time_s",
    "train_time_seconds",
    "train_seconds",
    "training_time_s",
    "wallclock_seconds",
    "train_time_ms",
)
EVAL_TIME = (
    "eval_time_s",
    "eval_time_seconds",
    "eval_seconds",
    "eval_time_ms",
    "ttt_eval_time_s",
    "ttt_eval_seconds",
    "ttt_eval_time_ms",
)
# Rounded sizes ("15.9 MB") are not what a rule can compare, so only whole units are read.
_STATED = re.compile(
    r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,18}(?:\.\d{1,18})?)"
    r"(?:\s*(?:±|\+/-|\+-)\s*\d{0,3}\.\d{1,18}|\s*(?:bytes|bpb|nats))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a value cannot be used."""

    reason: str


def as_fact(found: Located[Value] | Missing, convert: Callable[[Value], T | Unusable]) -> Fact[T]:
    """A value converted, or the reason why it cannot be."""
    if isinstance(found, Missing):
        return found
    value = convert(found.value)
    if isinstance(value, Unusable):
        return Missing(value.reason, found.location)
    return Located(value, found.location)


def text(value: Value) -> str | Unusable:
    """A text, or several as one."""
    if isinstance(value, list):
        value = ", ".join(item for item in value if isinstance(item, str))
    if not isinstance(value, str):
        return Unusable("the value is no text")
    return shown(value) if value.strip() else Unusable("the value is empty")


def number(value: Value) -> float | Unusable:
    """A finite number, also one that is written as text."""
    if isinstance(value, str):
        value = _stated_number(value)
    if not is_finite_number(value):
        return Unusable("the value is no finite number")
    return float(value)  # type: ignore[arg-type]


def integer(value: Value) -> int | Unusable:
    """A number without its decimals."""
    found = number(value)
    # Means of bytes are printed with decimals; half a byte changes nothing.
    return round(found) if isinstance(found, float) else found


def _stated_number(text: str) -> float | None:
    """A number that is written as text: with grouped digits, with its deviation, or with its exact unit."""
    match = _STATED.fullmatch(text.strip())
    return float(match[1].replace(",", "")) if match else None
