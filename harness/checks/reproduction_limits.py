"""PG805 to PG808: seconds by our clock and bytes counted from disk, for a submission that was run."""

from __future__ import annotations

from typing import Final

from harness.challenge import ARTIFACT_CAP_BYTES
from harness.checks.common import reason_of, undecided
from harness.facts.reproduction import ReproductionFacts, SeedMeasurement
from harness.facts.submission import Submission
from harness.model import Evidence, Located, Missing, Outcome, Rule, Status, Value, Verdict, rule

FAMILY: Final = "reproduction"
OVERSHOOT_STEPS: Final = 2.0
SIZE_TOLERANCE: Final = 0.01  # relative


def current(submission: Submission) -> ReproductionFacts | None:
    """What was measured, unless nothing was or it is about other code."""
    facts = submission.reproduction
    return None if isinstance(facts, Missing) or facts.stale else facts


def ended_well(facts: ReproductionFacts) -> list[SeedMeasurement]:
    """The seeds whose run gave an artifact and a score; PG801 tells of the others."""
    return [seed for seed in facts.seeds if seed.outcome == "ok"]


@rule(
    "PG805",
    "training-over-limit",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README: ten minutes of training",
    needs=Evidence.REPRODUCTION,
)
def training_over_limit(submission: Submission) -> Outcome | None:
    """Training took longer, by the harness' own clock, than the limit that the script was given.

    What it checks:
        Seconds from the line before the first training step to the last one, as the lines arrived here, against the
        wallclock limit plus two steps. Steps after the last printed one count at the mean pace until then. It warns:
        validations between printed steps, which scripts do not count, are inside our time. A run that goes on beyond
        the grace is ended, and fails PG801.

    Why it matters:
        Training may take ten minutes; a script's own `train_time` is its own word.

    Evidence:
        `seed-N/train.times`: the arrival of each line of `seed-N/train.log`, in seconds since the start.

    How to fix:
        Stop before the limit, by the clock, on all ranks at the same step.
    """
    facts = current(submission)
    if facts is None:
        return None
    return _timed(facts, "training")


@rule(
    "PG806",
    "evaluation-over-limit",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README FAQ: evaluation may take another ten minutes",
    needs=Evidence.REPRODUCTION,
)
def evaluation_over_limit(submission: Submission) -> Outcome | None:
    """Evaluation took longer, by the harness' own clock, than its limit.

    What it checks:
        Seconds from the end of training and packing to the last final score, as the lines arrived here, against the
        evaluation limit. Diagnostics that stand between are inside, so that it warns only. A run that goes on beyond
        the grace is ended, and fails PG801.

    Why it matters:
        Evaluation may take ten minutes, test-time training included.

    Evidence:
        `seed-N/train.times`: the arrival of each line of `seed-N/train.log`, in seconds since the start.

    How to fix:
        Score less expensively, or leave diagnostics out of the published script.
    """
    facts = current(submission)
    if facts is None:
        return None
    return _timed(facts, "evaluation")


@rule(
    "PG807",
    "measured-artifact-over-cap",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README FAQ: code plus compressed model, 16,000,000 bytes; #1835, #1959",
    needs=Evidence.REPRODUCTION,
)
def measured_artifact_over_cap(submission: Submission) -> Outcome | None:
    """The artifact that the script wrote, counted from disk, is larger than 16,000,000 bytes with its code.

    What it checks:
        The model file on disk plus the entry script's bytes. It fails above the cap. Two accountings are disputed and
        warn only: all code files counted, and a script that is itself above the cap but whose log states a total below
        it (code counted in compressed form).

    Why it matters:
        "The artifact is code bytes plus compressed model bytes", at most 16,000,000, decimal (README).

    Evidence:
        `seed-N/run.json`: path, bytes and hash of the file.

    How to fix:
        Fewer parameters, fewer bits, less code.
    """
    facts = current(submission)
    if facts is None:
        return None
    outcomes = [_size(seed) for seed in ended_well(facts)]
    return max(outcomes, key=lambda outcome: outcome.verdict.severity, default=None)


@rule(
    "PG808",
    "logged-size-differs",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README FAQ: code plus compressed model",
    needs=Evidence.REPRODUCTION,
)
def logged_size_differs(submission: Submission) -> Outcome | None:
    """The size that the script logged is not the size of what it wrote.

    What it checks:
        The artifact size in the run's own log against the file on disk, with the entry script or with all code files.
        More than 1% below the disk's number warns: the log may count the code in compressed form.

    Why it matters:
        Published sizes come from logs; the cap is on bytes.

    Evidence:
        `seed-N/run.json` and `seed-N/train.log` of the evidence directory.

    How to fix:
        Log the size of the file that was written, read from disk.
    """
    facts = current(submission)
    if facts is None:
        return None
    seeds = ended_well(facts)
    if not seeds:
        return None
    outcomes = [outcome for outcome in map(_logged, seeds) if outcome is not None]
    if not outcomes:
        return undecided("Sizes were not compared", "no run's log states an artifact size beside an artifact on disk")
    return max(outcomes, key=lambda outcome: outcome.verdict.severity)


def _timed(facts: ReproductionFacts, phase: str) -> Outcome | None:
    limit = facts.train_limit_seconds if phase == "training" else facts.eval_limit_seconds
    if isinstance(limit, Missing):
        return undecided(f"The limit of {phase} is not known", limit.reason)
    seeds = ended_well(facts)
    if not seeds:
        return None
    times = {seed.seed: seed.train_seconds if phase == "training" else seed.eval_seconds for seed in seeds}
    timed = {seed: fact for seed, fact in times.items() if isinstance(fact, Located)}
    if not timed:
        return undecided(f"No {phase} was timed", reason_of(times.values()))
    seed, longest = max(timed.items(), key=lambda item: item[1].value)
    allowed = limit.value + (_overshoot_seconds(facts, seed) if phase == "training" else 0.0)
    values: dict[str, Value] = {"longest_seconds": longest.value, "limit_seconds": limit.value}
    told = (
        f"{phase.capitalize()} took {longest.value:.1f} s by our clock (seed {seed}), the limit is {limit.value:g} s."
    )
    verdict = Verdict.PASS if longest.value <= allowed else Verdict.WARN
    return Outcome(verdict, told, values, (longest.location, limit.location))


def _overshoot_seconds(facts: ReproductionFacts, number: int) -> float:
    """Two steps of that seed: a script looks at its clock between steps."""
    for seed in facts.seeds:
        if seed.seed == number and isinstance(seed.step_milliseconds, Located):
            return OVERSHOOT_STEPS * seed.step_milliseconds.value / 1000.0
    return 0.0


def _size(seed: SeedMeasurement) -> Outcome:
    total, everything, logged = seed.artifact_bytes, seed.all_code_bytes, seed.logged_bytes
    if isinstance(total, Missing) or isinstance(everything, Missing):
        return undecided(f"Seed {seed.seed}", reason_of((total, everything)))
    values: dict[str, Value] = {"total_bytes": total.value, "all_code_total_bytes": everything.value}
    told = f"Seed {seed.seed}: {total.value:,} bytes on disk (script and model), the cap is {ARTIFACT_CAP_BYTES:,}"
    at = (total.location,)
    if everything.value <= ARTIFACT_CAP_BYTES:
        return Outcome(Verdict.PASS, f"{told}.", values, at)
    if total.value <= ARTIFACT_CAP_BYTES:
        return Outcome(Verdict.WARN, f"{told}; with every code file {everything.value:,}.", values, at)
    if isinstance(logged, Located) and logged.value <= ARTIFACT_CAP_BYTES:
        stated = f"{told}; the log states {logged.value:,}, which may count the code in compressed form."
        return Outcome(Verdict.WARN, stated, values, (*at, logged.location))
    return Outcome(Verdict.FAIL, f"{told}.", values, at)


def _logged(seed: SeedMeasurement) -> Outcome | None:
    logged, total, everything = seed.logged_bytes, seed.artifact_bytes, seed.all_code_bytes
    if isinstance(logged, Missing) or isinstance(total, Missing) or isinstance(everything, Missing):
        return None
    values: dict[str, Value] = {
        "logged_bytes": logged.value,
        "total_bytes": total.value,
        "all_code_total_bytes": everything.value,
    }
    told = f"Seed {seed.seed}: the log states {logged.value:,} bytes, on disk are {total.value:,}."
    near = any(abs(logged.value / size - 1.0) <= SIZE_TOLERANCE for size in (total.value, everything.value))
    return Outcome(Verdict.PASS if near else Verdict.WARN, told, values, (logged.location, total.location))


LIMIT_RULES: Final[tuple[Rule[Submission], ...]] = (
    training_over_limit,
    evaluation_over_limit,
    measured_artifact_over_cap,
    logged_size_differs,
)
