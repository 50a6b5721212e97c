"""The catalogue of rules: every family's `RULES`, one after the other."""

from __future__ import annotations

from harness.checks import (
    budget,
    bytetable,
    homogeneity,
    legality,
    legality_data,
    metric,
    package,
    reproduction,
    significance,
    size,
    targets,
)
from harness.facts.submission import Submission
from harness.model import Rule

RULES: tuple[Rule[Submission], ...] = (
    *package.RULES,
    *size.RULES,
    *budget.RULES,
    *metric.RULES,
    *bytetable.RULES,
    *significance.RULES,
    *homogeneity.RULES,
    *legality.RULES,
    *legality_data.RULES,
    *targets.RULES,
    *reproduction.RULES,
)
