"""What a finished log says: the score that counts, and the sizes; read as anybody's log is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.facts.build_runs import build_runs
from harness.facts.logfile import read_log
from harness.model import Fact, Located
from harness.sources.logevents import ScoreEvent
from harness.sources.scorelabels import choose


@dataclass(frozen=True, slots=True)
class Measured:
    """What one log states.

    Attributes:
        val_bpb: bits per byte of the headline, possibly NaN; None where there is none.
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


def read(path: Path) -> Measured:
    """Read a log that a job wrote; its size is bounded by the job's caps."""
    logs = read_log(path.read_bytes(), path.name)
    if not logs:
        return Measured()
    # A job is one run; the last one counts if it did not stick to that.
    log = logs[-1]
    (run,) = build_runs((log,))
    model_bytes, total_bytes = _known(run.model_bytes), _known(run.total_bytes)
    score = choose(log.of(ScoreEvent))
    if score is None:
        return Measured(model_bytes=model_bytes, total_bytes=total_bytes)
    return Measured(score.val_bpb, score.val_loss, score.label, score.line, model_bytes, total_bytes)


def _known(fact: Fact[int]) -> int | None:
    return fact.value if isinstance(fact, Located) else None
