"""What a finished log says: the score that counts, and the sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.sources.logevents import Event, ScoreEvent, SizeEvent, StepEvent
from harness.sources.trainlog import parse_lines

TOTAL_KINDS: Final = ("total", "unlabelled_total")
_DIAGNOSTIC = re.compile(r"diagnostic|pre[-_ ]?(?:quant|ttt)|float", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one log states.

    Attributes:
        val_bpb: bits per byte of the last final score, possibly NaN; None where there is none.
        val_loss: nats per token beside it.
        label: its label.
        line: its line, 0 where there is none.
        model_bytes: size of the compressed model.
        total_bytes: size of the whole artifact.
    """

    val_bpb: float | None = None
    val_loss: float | None = None
    label: str = ""
    line: int = 0
    model_bytes: int | None = None
    total_bytes: int | None = None


def read(log: Path) -> Measured:
    """Read a log that a job wrote (bounded already by its caps)."""
    with log.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        return of_events(parse_lines(lines))


def of_events(events: Iterable[Event]) -> Measured:
    """The last score after the last training step that is no diagnostic, and the last sizes."""
    score: ScoreEvent | None = None
    model: int | None = None
    total: int | None = None
    for event in events:
        match event:
            case StepEvent():
                score = None
            case ScoreEvent(label=label) if not _DIAGNOSTIC.search(label):
                score = _better(score, event)
            case SizeEvent(kind="model", size_bytes=size):
                model = size
            case SizeEvent(kind=kind, size_bytes=size) if kind in TOTAL_KINDS:
                total = size if kind == "total" or total is None else total
            case _:
                pass
    if score is None:
        return Measured(model_bytes=model, total_bytes=total)
    return Measured(score.val_bpb, score.val_loss, score.label, score.line, model, total)


def _better(before: ScoreEvent | None, event: ScoreEvent) -> ScoreEvent:
    """The later of two scores; of one value printed twice (rounded, then exact) the one with more digits."""
    if before is not None and before.digits > event.digits and round(before.val_bpb, event.digits) == event.val_bpb:
        return before
    return event
