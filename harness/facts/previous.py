"""The record before: what a claim of a new record is tested against."""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.challenge import Edition
from harness.model import Missing

NO_PREVIOUS = Missing("no previous record was given")


@dataclass(frozen=True, slots=True)
class Sample:
    """The val_bpb of some runs.

    Attributes:
        count: how many runs.
        mean: their mean, bits per byte.
        deviation: their sample deviation (n - 1); None for one run, which has none.
        values: each run's score, where they are known one by one.
    """

    count: int
    mean: float
    deviation: float | None
    values: tuple[float, ...] = ()


def sample_of(values: Sequence[float]) -> Sample:
    """The sample of some scores, at least one."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Sample(len(values), statistics.fmean(values), deviation, tuple(values))


def sample_from_summary(count: int, mean: float, deviation: float, ddof: int) -> Sample:
    """The sample that a mean and a deviation describe.

    Args:
        count: how many runs.
        mean: their mean.
        deviation: their deviation.
        ddof: 1 when it is the sample deviation (n - 1), 0 when it is the population's (n).
    """
    if count < 2:
        return Sample(count, mean, None)
    return Sample(count, mean, deviation if ddof else deviation * math.sqrt(count / (count - 1)))


def pooled(samples: Sequence[Sample]) -> Sample:
    """Several sets of runs as one, as if their scores stood in one list.

    Example:
        >>> pooled([sample_of([1.0, 2.0]), sample_of([3.0])]) == sample_of([1.0, 2.0, 3.0])
        True
    """
    if len(samples) == 1:
        return samples[0]
    if all(sample.values for sample in samples):
        return sample_of([value for sample in samples for value in sample.values])
    count = sum(sample.count for sample in samples)
    mean = sum(sample.count * sample.mean for sample in samples) / count
    squares = sum((s.count - 1) * (s.deviation or 0.0) ** 2 + s.count * (s.mean - mean) ** 2 for s in samples)
    return Sample(count, mean, math.sqrt(squares / (count - 1)))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a leaderboard.

    Attributes:
        name: the record folder's name, or what the row is called.
        date: its date, or None.
        sample: the scores of its own runs.
        reproductions: who else ran it, and what came out.
    """

    name: str
    date: dt.date | None
    sample: Sample
    reproductions: tuple[tuple[str, Sample], ...] = ()

    @property
    def pooled(self) -> Sample:
        """Its own runs and the independent reproductions together."""
        return pooled((self.sample, *(sample for _, sample in self.reproductions)))


@dataclass(frozen=True, slots=True)
class Previous:
    """What `--previous` named: the rows of a leaderboard, or the one row of a folder.

    Attributes:
        rows: every row.
        edition: the edition of the rules that judges the claim.
        chosen: True when the user named the row (a folder); a leaderboard's row is chosen by date.
    """

    rows: tuple[Row, ...]
    edition: Edition
    chosen: bool
