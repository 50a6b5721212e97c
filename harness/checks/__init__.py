"""The catalogue of rules: every family's `RULES`, one after the other."""

from __future__ import annotations

from harness.checks import (
    budget,
    budget_readings,
    budget_runs,
    bytetable,
    homogeneity,
    homogeneity_runs,
    legality,
    legality_data,
    metric,
    package,
    package_claims,
    package_names,
    package_pipeline,
    plausible,
    pullrequest,
    record,
    reproduction,
    significance,
    size,
    size_code,
    size_files,
    split,
    targets,
)
from harness.facts.submission import Submission
from harness.model import Rule

RULES: tuple[Rule[Submission], ...] = (
    *package.RULES,
    *pullrequest.RULES,
    *package_names.RULES,
    *package_pipeline.RULES,
    *package_claims.RULES,
    *size.RULES,
    *size_code.RULES,
    *size_files.RULES,
    *budget.RULES,
    *budget_readings.RULES,
    *budget_runs.RULES,
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
