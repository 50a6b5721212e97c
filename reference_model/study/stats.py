"""Means, and whether a difference is larger than what seeds make: Welch's interval, and the verdicts that follow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reference_model.study.design import Contrast

CONFIDENCE = 0.95
REPLICATES = "replicates at this scale"
DOES_NOT = "does not replicate at this scale"
CANNOT_BE_TOLD = "cannot be told"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Interval:
    """A difference of two means, and Welch's interval around it; infinite where a side has a single run."""

    low: float
    middle: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether zero is outside."""
        return not self.low <= 0.0 <= self.high


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, which is not a number for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The mean of the first less that of the second, with Welch's interval of 95 %.

    Values that do not vary at all (counts, say) have an interval of no width.
    """
    middle = statistics.fmean(first) - statistics.fmean(second)
    if min(len(first), len(second)) < 2:
        return Interval(-math.inf, middle, math.inf)
    if len(set(first)) == len(set(second)) == 1:
        return Interval(middle, middle, middle)
    from scipy import stats

    found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(float(found.low), middle, float(found.high))


@dataclass(frozen=True)
class Judgement:
    """A contrast held against numbers.

    Attributes:
        verdict: One of the four.
        interval: Of the difference, or of the ratio where the claim is about one; none when not run.
    """

    verdict: str
    interval: Interval | None = None


def judge(contrast: Contrast, values: Mapping[str, Sequence[float]]) -> Judgement:
    """Hold a contrast against a measure's values by variant.

    The claim is that a difference is below zero, or a ratio not above its limit: it replicates when the whole
    interval is there, does not when the whole interval is on the other side, and cannot be told otherwise.
    """
    lower, higher = values.get(contrast.lower, ()), values.get(contrast.higher, ())
    if not lower or not higher:
        return Judgement(NOT_RUN)
    if contrast.at_most is None:
        interval, limit = difference(lower, higher), 0.0
    else:
        logs = difference([math.log(value) for value in lower], [math.log(value) for value in higher])
        interval, limit = Interval(*map(math.exp, (logs.low, logs.middle, logs.high))), contrast.at_most
    if interval.high < limit or (contrast.at_most is not None and math.isclose(interval.high, limit)):
        return Judgement(REPLICATES, interval)
    return Judgement(DOES_NOT if interval.low > limit else CANNOT_BE_TOLD, interval)
