"""The curves of a run: training losses, and the validations between the steps."""

from __future__ import annotations

import math

from harness.facts.logfile import LogFile
from harness.facts.runs import NO_VALIDATION, Score
from harness.model import Fact, Located, Location, Missing
from harness.sources.logevents import StepEvent

LOSSES_LIMIT = 120
CURVE_LIMIT = 2_000


def losses(log: LogFile) -> tuple[tuple[int, float], ...]:
    """The training losses, thinned evenly to what a figure needs."""
    found = [
        (e.step, e.train_loss) for e in log.of(StepEvent) if e.train_loss is not None and math.isfinite(e.train_loss)
    ]
    return tuple(found[:: max(-(-len(found) // LOSSES_LIMIT), 1)])


def curve(log: LogFile) -> tuple[tuple[int, float], ...]:
    """The bits per byte of the last validations during training, by step."""
    points = [(e.step, e.val_bpb) for e in log.of(StepEvent) if e.val_bpb is not None and math.isfinite(e.val_bpb)]
    return tuple(points[-CURVE_LIMIT:])


def validation(log: LogFile) -> Fact[Score]:
    """The last validation during training, with as many decimals as any of them has."""
    both = [e for e in log.of(StepEvent) if e.val_loss is not None and e.val_bpb is not None]
    if not both:
        return NO_VALIDATION
    last, place = both[-1], log.at(both[-1].line)
    made = Score(
        label="val_bpb",
        val_bpb=finite(last.val_bpb, place),
        val_loss=finite(last.val_loss, place),
        digits=max(decimals(e.val_bpb) for e in both),
        loss_digits=max(decimals(e.val_loss) for e in both),
        eval_seconds=Missing("the log does not time this evaluation", place),
        diagnostic=True,
    )
    return Located(made, place)


def decimals(value: float | None) -> int:
    """Decimals of a number as it was printed, but for zeros at its end."""
    return len(repr(value).partition(".")[2])


def finite(value: float | None, place: Location) -> Fact[float]:
    """A printed number, where it is one."""
    if value is None:
        return Missing("the line prints no such value", place)
    return Located(value, place) if math.isfinite(value) else Missing(f"the log prints {value}", place)
