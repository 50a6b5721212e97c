"""The tests of a record claim, in every reading: pure arithmetic on two samples.

Only the distribution function comes from a library, and from the smaller one: `scipy.stats` takes longer to import
than a folder takes to audit. `scipy.stats.ttest_ind(new, old, equal_var=False, alternative="less")` gives the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.challenge import EDITIONS, MARGIN_NATS, Edition
from harness.facts.previous import Sample, sample_of

USUAL_SEEDS = 3
MLPERF_P_VALUE = 0.05


def welch(new: Sample, old: Sample, margin_bpb: float = 0.0) -> float | None:
    """One-sided p-value of `the new mean is at least the old one minus the margin`, variances not assumed equal.

    Returns:
        None where there is none: a sample of one run, or two samples without any deviation.
    """
    if new.deviation is None or old.deviation is None:
        return None
    first, second = new.deviation**2 / new.count, old.deviation**2 / old.count
    if first + second <= 0.0:
        return None
    t = (new.mean + margin_bpb - old.mean) / math.sqrt(first + second)
    freedom = (first + second) ** 2 / (first**2 / (new.count - 1) + second**2 / (old.count - 1))
    return _student(t, freedom)


def one_sample(new: Sample, mean: float) -> float | None:
    """One-sided p-value of `the new mean is at least this number`; None for one run or without any deviation."""
    if new.deviation is None or new.deviation <= 0.0:
        return None
    return _student((new.mean - mean) / (new.deviation / math.sqrt(new.count)), new.count - 1)


def pooled_variance(new: Sample, old: Sample) -> float | None:
    """One-sided p-value with one common variance; None where two runs or fewer tell nothing."""
    freedom = new.count + old.count - 2
    if freedom < 1:
        return None
    squares = sum((sample.count - 1) * (sample.deviation or 0.0) ** 2 for sample in (new, old))
    if squares <= 0.0:
        return None
    error = math.sqrt(squares / freedom * (1 / new.count + 1 / old.count))
    return _student((new.mean - old.mean) / error, freedom)


def olympic(sample: Sample) -> Sample | None:
    """The sample without its best and its worst run; None where no two runs would be left."""
    if len(sample.values) < 4:
        return None
    return sample_of(sorted(sample.values)[1:-1])


def needed_mean(old: Sample, edition: Edition, margin_bpb: float) -> float | None:
    """The largest mean of three seeds with the old row's deviation that the edition's test would accept."""
    if old.deviation is None or old.deviation <= 0.0:
        return None
    from scipy.special import stdtrit

    freedom = USUAL_SEEDS + old.count - 2
    error = old.deviation * math.sqrt(1 / USUAL_SEEDS + 1 / old.count)
    return old.mean - margin_bpb + float(stdtrit(freedom, edition.p_value)) * error


def _student(t: float, freedom: float) -> float:
    """The distribution function of Student's t."""
    from scipy.special import stdtr

    return float(stdtr(freedom, t))


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one test.

    Attributes:
        edition: the edition whose rule it is; empty for what is information only.
        name: the reading in words.
        margin_bpb: by how much the old mean must be beaten, bits per byte.
        p_value: of the null hypothesis, or None where there is none.
        cut_off: p-value below which the claim counts as shown.
    """

    edition: str
    name: str
    margin_bpb: float
    p_value: float | None
    cut_off: float

    @property
    def met(self) -> bool:
        """Whether the reading accepts the claim."""
        return self.p_value is not None and self.p_value < self.cut_off


def readings(new: Sample, old: Sample, bytes_per_token: float | None) -> tuple[Reading, ...]:
    """Every reading of both editions, then the tests of other benchmarks as information.

    Args:
        new: the claim's runs.
        old: the previous record's runs.
        bytes_per_token: of the claim's tokenizer, to turn nats per token into bits per byte; None where unknown.
    """
    first, last = EDITIONS
    bits = MARGIN_NATS / math.log(2)
    margins = [("0.005 nats per byte", bits), ("0.005 BPB", MARGIN_NATS)]
    if bytes_per_token is not None:
        margins.insert(0, ("0.005 nats per token", bits / bytes_per_token))
    found = [
        Reading(first.name, f"{name} better", margin, welch(new, old, margin), first.p_value)
        for name, margin in margins
    ]
    found.append(Reading(last.name, "better (Welch, no margin)", 0.0, welch(new, old), last.p_value))
    found.append(Reading("", "one-sample t-test against the old mean", 0.0, one_sample(new, old.mean), first.p_value))
    trimmed = olympic(new), olympic(old)
    if trimmed[0] is not None and trimmed[1] is not None:
        p_value = pooled_variance(trimmed[0], trimmed[1])
        found.append(Reading("", "MLPerf: olympic means, common variance", 0.0, p_value, MLPERF_P_VALUE))
    else:
        p_value = pooled_variance(new, old)
        found.append(Reading("", "MLPerf: common variance, too few runs to trim", 0.0, p_value, MLPERF_P_VALUE))
    return tuple(found)
