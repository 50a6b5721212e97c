"""Which phase a run is in, by the lines it prints and our own clock, and when it is overdue.

A script's own times are its word. Here each line counts when it arrives: training lasts from the line before the
first step to the last step, packing from there to the first line about
the artifact's size, evaluation from there to the last score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.reproduce.progress import Snapshot
from harness.sources.logevents import ConfigEvent, Event, ScoreEvent, SizeEvent, StepEvent, StopEvent
from harness.sources.trainlog import LineParser

PACKED_KINDS: Final = frozenset({"model", "total", "unlabelled_total"})
BATCH_KEY: Final = "train_batch_tokens"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the phases may take; a run is ended `grace_seconds` beyond them."""

    startup_seconds: float
    train_seconds: float
    eval_seconds: float
    grace_seconds: float

    @property
    def total_seconds(self) -> float:
        """Everything together."""
        return self.startup_seconds + self.train_seconds + self.eval_seconds + 2.0 * self.grace_seconds


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds since the start at which phases began and ended; None where the log does not tell."""

    train_start: float | None = None
    train_end: float | None = None
    pack_end: float | None = None
    last_score: float | None = None
    last_step: int | None = None

    @property
    def train_seconds(self) -> float | None:
        """Training time."""
        if self.train_start is None or self.train_end is None:
            return None
        return self.train_end - self.train_start

    @property
    def pack_seconds(self) -> float | None:
        """From the end of training to the artifact."""
        if self.train_end is None or self.pack_end is None:
            return None
        return self.pack_end - self.train_end

    @property
    def eval_seconds(self) -> float | None:
        """From the artifact (or the end of training) to the last score."""
        if self.train_end is None or self.last_score is None:
            return None
        packed_first = self.pack_end is not None and self.pack_end <= self.last_score
        return self.last_score - (self.pack_end if packed_first and self.pack_end is not None else self.train_end)

    @property
    def step_milliseconds(self) -> float | None:
        """Mean duration of a step."""
        if self.train_seconds is None or not self.last_step:
            return None
        return 1000.0 * self.train_seconds / self.last_step


class TrainingWatch:
    """Follows a whole run: training, packing, evaluation."""

    def __init__(self, seed: int, limits: Limits, show: Callable[[Snapshot], None]) -> None:
        """Follow the run of one seed; `show` gets a snapshot several times a second."""
        self._seed = seed
        self._limits = limits
        self._show = show
        self._parser = LineParser()
        self._lines = 0
        self._previous = 0.0
        self._steps: int | None = None
        self._loss: float | None = None
        self._batch_tokens: float | None = None
        self._tokens_per_second: float | None = None
        self._train_start: float | None = None
        self._last_step: int | None = None
        self._last_step_at = 0.0
        self._last_trained: tuple[int, float] | None = None
        self._stopped_at: float | None = None
        self._ended = False
        self._pack_end: float | None = None
        self._last_score: float | None = None

    def line(self, seconds: float, text: str) -> None:
        """Take a line that arrived so many seconds after the start."""
        self._lines += 1
        for event in self._parser.feed(text, self._lines):
            self._take(event, seconds)
        self._previous = seconds

    def overdue(self, seconds: float) -> str:
        """Why the run must end now, or ""."""
        self._show(self.snapshot(seconds))
        limits = self._limits
        if self._train_start is None:
            return f"no training step in {seconds:.0f} s" if seconds > limits.total_seconds else ""
        if self._ended:
            late = self._train_end() + limits.eval_seconds + limits.grace_seconds
            return f"evaluation went on beyond its {limits.eval_seconds:g} s" if seconds > late else ""
        late = self._train_start + limits.train_seconds + limits.grace_seconds
        if self._last_step_at > late:
            return f"training went on beyond its {limits.train_seconds:g} s"
        # Silence after the last step may be an evaluation that prints nothing: it gets its time too.
        if seconds > late + limits.eval_seconds + limits.grace_seconds:
            return f"no end of training in {seconds:.0f} s"
        return ""

    def phases(self) -> Phases:
        """What is known at the end."""
        return Phases(
            train_start=self._train_start,
            train_end=None if self._train_start is None else self._trained_until(self._train_start),
            pack_end=self._pack_end,
            last_score=self._last_score if self._ended else None,
            last_step=self._last_step,
        )

    def snapshot(self, seconds: float) -> Snapshot:
        """Where the run is now."""
        if self._train_start is None:
            return Snapshot(self._seed, "starting", seconds)
        if not self._ended:
            return self._training(seconds - self._train_start)
        phase, since = ("packing", self._train_end()) if self._pack_end is None else ("evaluating", self._pack_end)
        return Snapshot(self._seed, phase, seconds - since, self._last_step, self._steps)

    def _training(self, elapsed: float) -> Snapshot:
        done = self._last_step or 0
        spent = self._last_step_at - (self._train_start or 0.0)
        rate = done / spent if done and spent > 0 else None
        left = self._limits.train_seconds - elapsed
        if rate and self._steps:
            left = min(left, (self._steps - done) / rate)
        speed = self._tokens_per_second
        if speed is None and rate and self._batch_tokens:
            speed = rate * self._batch_tokens
        return Snapshot(self._seed, "training", elapsed, done, self._steps, speed, self._loss, max(0.0, left))

    def _take(self, event: Event, seconds: float) -> None:
        match event:
            case StepEvent():
                self._take_step(event, seconds)
            case StopEvent(step=step) if self._train_start is not None:
                self._stopped_at, self._ended = seconds, True
                # A log prints some steps only; the line that ends training knows the last one.
                self._last_step = max(step or 0, self._last_step or 0) or None
            case SizeEvent(kind=kind) if self._train_start is not None:
                self._ended = True
                if kind in PACKED_KINDS and self._pack_end is None:
                    self._pack_end = seconds
            case ScoreEvent() if self._train_start is not None:
                self._last_score, self._ended = seconds, True
            case ConfigEvent(key=key, value=value) if key == BATCH_KEY:
                self._batch_tokens = _number(value)
            case _:
                pass

    def _take_step(self, event: StepEvent, seconds: float) -> None:
        if event.step == 0:
            self._train_start = seconds
        elif self._train_start is None:
            self._train_start = self._previous
        # A score or a size in the middle of training was not its end after all.
        self._ended, self._stopped_at, self._pack_end, self._last_score = False, None, None, None
        self._last_step, self._last_step_at = event.step, seconds
        if event.train_loss is not None and event.step > 0:
            self._last_trained = (event.step, seconds)
        self._steps = event.iterations or self._steps
        self._loss = self._loss if event.train_loss is None else event.train_loss
        self._tokens_per_second = event.tokens_per_second or self._tokens_per_second
        if event.iterations is not None and event.step >= event.iterations:
            self._ended = True

    def _trained_until(self, start: float) -> float:
        """The end of the last step.

        A log prints some steps only, and its last line about training often stands after a validation: steps after
        the last printed one count at the mean pace until then, but never beyond the line that ends training.
        """
        if self._last_trained is None or self._last_step is None:
            return self._train_end()
        step, seconds = self._last_trained
        return min(self._train_end(), seconds + (self._last_step - step) * (seconds - start) / step)

    def _train_end(self) -> float:
        """The line that ends training: its steps were over by then."""
        return self._last_step_at if self._stopped_at is None else self._stopped_at


class PhaseWatch:
    """Follows a run that is one phase only, such as packing again; it must end within its seconds."""

    def __init__(self, seed: int, phase: str, limit_seconds: float, show: Callable[[Snapshot], None]) -> None:
        """Follow one phase of a seed."""
        self._seed = seed
        self._phase = phase
        self._limit_seconds = limit_seconds
        self._show = show

    def line(self, seconds: float, text: str) -> None:
        """Lines tell nothing here."""

    def overdue(self, seconds: float) -> str:
        """Why the run must end now, or ""."""
        self._show(Snapshot(self._seed, self._phase, seconds))
        return f"{self._phase} took more than {self._limit_seconds:g} s" if seconds > self._limit_seconds else ""


def _number(text: str) -> float | None:
    """A positive number as printed, with or without separators, or None."""
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        return None
    return value if 0 < value < 1e15 else None
