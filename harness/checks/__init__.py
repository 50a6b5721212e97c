"""The catalogue of rules: every family's `RULES`, one after the other."""

from __future__ import annotations

from harness.checks import (
    budget,
    bytetable,
    homogeneity,
    homogeneity_runs,
    legality,
    legality_data,
    metric,
    package,
    plausible,
    pullrequest,
    record,
    reproduction,
    significance,
    size,
    split,
    targets,
)
from harness.facts.submission import Submission
from harness.model import Rule

RULES: tuple[Rule[Submission], ...] = (
    *package.RULES,
    *pullrequest.RULES,
    *size.RULES,
    *budget.RULES,
    *metric.RULES,
    *split.RULES,
    *plausible.RULES,
    *bytetable.RULES,
    *significance.RULES,
    *record.RULES,
    *homogeneity.RULES,
    *homogeneity_runs.RULES,
    *legality.RULES,
    *legality_data.RULES,
    *targets.RULES,
    *reproduction.RULES,
)
