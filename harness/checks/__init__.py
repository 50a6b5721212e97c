"""The catalogue of rules: every family's `RULES`, one after the other."""

from __future__ import annotations

from harness.checks import (
    budget,
    budget_readings,
    homogeneity,
    metric,
    package,
    reproduction,
    significance,
    size,
    size_code,
)
from harness.facts.submission import Submission
from harness.model import Rule

RULES: tuple[Rule[Submission], ...] = (
    *package.RULES,
    *size.RULES,
    *size_code.RULES,
    *budget.RULES,
    *budget_readings.RULES,
    *metric.RULES,
    *significance.RULES,
    *homogeneity.RULES,
    *reproduction.RULES,
)
