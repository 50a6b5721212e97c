"""PG4xx: mean and deviation recomputed, and the number of seeds.

The tests of a record claim against the previous record stand in `record`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.checks.budget import track
from harness.checks.common import (
    agree,
    bpb,
    claim_unit,
    counted,
    distinct,
    headline_bpb,
    known,
    places,
    printed_unit,
    undecided,
)
from harness.facts.claims import SeedClaim
from harness.facts.submission import Submission
from harness.model import Located, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "significance"
# A deviation that differs by less says the same of the seeds.
SAME_SHARE = 1e-3
USUAL_SEEDS = 3


def seed_values(submission: Submission) -> tuple[str, tuple[Located[float], ...], float]:
    """The per-seed val_bpb that a mean is made of.

    Returns:
        Where they come from (`submission.json`, `README`, `logs`, or empty when there are none), the values, and
        one unit of their last digit (the finest, since tables drop trailing zeros).
    """
    for source, claims in (("submission.json", submission.claims.seeds), ("README", submission.readme.seeds)):
        values = _stated(claims)
        if len(values) > 1:
            return source, values, min(claim_unit(value.value) for value in values)
    runs = counted(submission).runs
    logged = tuple(score for run in runs if (score := headline_bpb(run)) is not None)
    if not logged:
        return "", (), 0.0
    return "logs", logged, max(printed_unit(run) for run in runs)


def _noun(submission: Submission, source: str) -> str:
    """What the values are of: seeds, or runs where logs share a seed or name none."""
    seeds = [known(run.seed) for run in counted(submission).runs]
    distinct_seeds = None not in seeds and len(set(seeds)) == len(seeds)
    return "seeds" if source != "logs" or distinct_seeds else "runs"


def _stated(claims: Sequence[SeedClaim]) -> tuple[Located[float], ...]:
    return tuple(claim.val_bpb for claim in claims if isinstance(claim.val_bpb, Located))


@rule("PG401", "mean-differs", family=FAMILY, status=Status.POLICY, authority="README, Submission Process; #1899")
def mean_differs(submission: Submission) -> Outcome | None:
    """The claimed val_bpb is not the mean of the seeds.

    What it checks:
        The mean of the per-seed values (of submission.json, else of the README's table, else of the logs) against
        the claim, within the printed digits. A claim that is one seed's value is named as such. Not for a single
        seed.

    Why it matters:
        "Most often, submitting an average over 3 training runs is sufficient." The best of several seeds is a
        smaller number than their mean and compares with no other row; early accepted records did claim it: hence
        a warning.

    Evidence:
        The claim and the per-seed values.

    How to fix:
        Claim the mean over all seeds that were run.
    """
    claim = submission.claims.val_bpb
    source, values, unit = seed_values(submission)
    if len(values) == 1:
        return None
    if isinstance(claim, Missing):
        return undecided("The mean cannot be compared with a claim", claim.reason)
    if not values:
        return undecided("The mean cannot be recomputed", "no per-seed value was read", claim)
    mean = statistics.fmean(value.value for value in values)
    numbers: dict[str, Value] = {"claimed_bpb": claim.value, "mean_bpb": round(mean, 10), "seed_count": len(values)}
    where = places(claim, *values)
    subject = f"The mean of {len(values)} {_noun(submission, source)} ({source}) is {bpb(mean)}"
    # Nobody prints more than ten decimals on purpose.
    unit = max(unit, claim_unit(claim.value), 1e-9)
    if agree(claim.value, mean, unit):
        return Outcome(Verdict.PASS, f"{subject}, as claimed.", numbers, where)
    ranked = sorted(value.value for value in values)
    name = "the best seed's" if agree(claim.value, ranked[0], unit) else "one seed's"
    if any(agree(claim.value, value, unit) for value in ranked):
        return Outcome(Verdict.WARN, f"{subject}; the claim of {bpb(claim.value)} is {name} value.", numbers, where)
    return Outcome(Verdict.WARN, f"{subject}; the claim is {bpb(claim.value)}.", numbers, where)


def _deviation_source(submission: Submission, claim: float) -> tuple[str, tuple[Located[float], ...], float]:
    """The values that a claimed deviation is of: the seeds as a mean is made of them; the README's where they fit it.

    Returns:
        The name of the source, its values, and the unit within which its deviations are known.
    """
    first = seed_values(submission)
    rows = _stated(submission.readme.seeds)
    # Rounding each value by half a unit moves the deviation by less than a unit. Deviations are padded with zeros.
    least = max(claim_unit(float(claim)), SAME_SHARE * claim)
    unit = max(first[2], least)
    if first[0] == "README" or len(rows) < 2 or _misfit(claim, first[1]) <= unit:
        return first[0], first[1], unit
    unit_of_rows = max(*(claim_unit(value.value) for value in rows), least)
    second = ("README", rows, unit_of_rows)
    return second if _misfit(claim, rows) <= unit_of_rows else (first[0], first[1], unit)


def _misfit(claim: float, values: Sequence[Located[float]]) -> float:
    """How far a claimed deviation is from the nearer of the two deviations of some values."""
    numbers = [value.value for value in values]
    if len(numbers) < 2:
        return math.inf
    return min(abs(statistics.stdev(numbers) - claim), abs(statistics.pstdev(numbers) - claim))


@rule("PG402", "deviation-differs", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def deviation_differs(submission: Submission) -> Outcome | None:
    """The claimed standard deviation is not that of the seeds.

    What it checks:
        `val_bpb_std` (of submission.json, else of the README) against the sample deviation (n - 1) and the
        population deviation (n) of the per-seed values, within the printed digits and a thousandth; where
        submission.json has the seeds and they do not give it, against the README's table too. Either is accepted,
        and named. Not for folders that claim no deviation.

    Why it matters:
        Significance rests on it: with three seeds the population deviation is a fifth smaller than the sample one.

    Evidence:
        The claimed deviation and the per-seed values.

    How to fix:
        State the sample deviation of the listed seeds, `statistics.stdev`.
    """
    claims = (submission.claims.val_bpb_std, submission.readme.val_bpb_std)
    claim = next((fact for fact in claims if isinstance(fact, Located)), None)
    if claim is None:
        return None
    source, values, unit = _deviation_source(submission, claim.value)
    if len(values) < 2:
        reason = "no per-seed value was read" if not values else "only one per-seed value was read"
        return undecided(f"The deviation of {bpb(claim.value)} cannot be recomputed", reason, claim)
    numbers = [value.value for value in values]
    sample, population = statistics.stdev(numbers), statistics.pstdev(numbers)
    shown: dict[str, Value] = {
        "claimed_bpb": claim.value,
        "sample_deviation_bpb": round(sample, 10),
        "population_deviation_bpb": round(population, 10),
        "seed_count": len(values),
    }
    where, noun = places(claim, *values), _noun(submission, source)
    named = ((sample, "sample (n - 1)"), (population, "population (n)"))
    value, name = min(named, key=lambda pair: abs(pair[0] - claim.value))
    if agree(claim.value, value, unit):
        message = f"{bpb(claim.value)} is the {name} deviation of {len(values)} {noun} ({source})."
        return Outcome(Verdict.PASS, message, shown, where)
    message = (
        f"The claimed deviation is {bpb(claim.value)}; {len(values)} {noun} ({source}) give "
        f"{bpb(sample)} (n - 1) or {bpb(population)} (n)."
    )
    return Outcome(Verdict.WARN, message, shown, where)


@rule("PG403", "few-seeds", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def few_seeds(submission: Submission) -> Outcome | None:
    """A record claim rests on fewer than three seeds.

    What it checks:
        The number of different seeds with a training log. Not for non-record submissions.

    Why it matters:
        "Please demonstrate a statistically significant win. Most often, submitting an average over 3 training runs
        is sufficient." The number is a habit, and systems-only changes need none: hence a warning.

    Evidence:
        The seeds of the logs.

    How to fix:
        Run two more seeds with the same script and settings, and ship their logs.
    """
    if track(submission) == "non-record":
        return None
    runs = distinct(submission.runs)
    if not runs:
        return undecided("The number of seeds cannot be told", "no training log was read")
    seeds = {known(run.seed) for run in runs} - {None}
    unnamed = sum(isinstance(run.seed, Missing) for run in runs)
    shown: dict[str, Value] = {"seed_count": len(seeds), "usual_count": USUAL_SEEDS}
    where = places(*(run.seed for run in runs)) or places(*(run.location for run in runs))
    message = f"{len(seeds)} different seeds have a log; three are usual."
    if len(seeds) >= USUAL_SEEDS:
        return Outcome(Verdict.PASS, message, shown, where)
    if unnamed and len(seeds) + unnamed >= USUAL_SEEDS:
        return undecided("The number of seeds cannot be told", f"{unnamed} logs name no seed", *where)
    if not seeds and unnamed:
        message = f"{unnamed} logs, which name no seed; three seeds are usual."
    return Outcome(Verdict.WARN, message.replace("1 different seeds have", "One seed has"), shown, where)


RULES = (mean_differs, deviation_differs, few_seeds)
