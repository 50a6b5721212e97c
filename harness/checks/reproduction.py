"""PG800 to PG804: what the submission claims against what `harness reproduce` measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from harness.challenge import EDITIONS
from harness.checks.common import reason_of, undecided
from harness.checks.reproduction_limits import LIMIT_RULES, current, ended_well
from harness.facts.reproduction import ReproductionFacts, SeedMeasurement
from harness.facts.submission import Submission
from harness.model import Evidence, Fact, Located, Location, Missing, Outcome, Rule, Status, Value, Verdict, rule, worst

FAMILY: Final = "reproduction"
STEPS_TOLERANCE: Final = 0.05  # relative; other steps under the same seconds mean another machine
NOISE_DEVIATIONS: Final = 3.0  # standard errors between two means of seeds
SAME_BPB: Final = 1e-6  # the digits that logs print
NOISE_BPB: Final = 1e-4  # summation order, other kernels
REPRODUCIBLE: Final = "README FAQ: the artifact must be fully self-contained and reproducible"
NO_WALLS: Final = "L1"
SEEN: Final = (
    "The training runs could read the validation shards, since the script scores in the same process; scoring again "
    "could not read the training shards."
)
DISQUALIFIED: Final = "README FAQ: any non-reproducible results can be disqualified"


@rule(
    "PG800",
    "evidence-stale",
    family=FAMILY,
    status=Status.SETTLED,
    authority=DISQUALIFIED,
    needs=Evidence.REPRODUCTION,
)
def evidence_stale(submission: Submission) -> Outcome | None:
    """The evidence was made with other code than the folder holds now.

    What it checks:
        The hash over the folder's code files, now and when the script was run.

    Why it matters:
        "Any non-reproducible results can be disqualified" (README): a measurement speaks for the code that ran. When
        the code was changed since, every other rule of this family keeps silent.

    Evidence:
        `plan.json` of the evidence directory, and the code files of the folder.

    How to fix:
        Run `harness reproduce` again; it makes a new evidence directory for changed code.
    """
    facts = submission.reproduction
    if isinstance(facts, Missing):
        return None
    at = (Location("plan.json", pointer="/folder_sha256"),)
    values: dict[str, Value] = {"evidence_sha256": facts.folder_sha256}
    if facts.stale:
        return Outcome(Verdict.UNDECIDED, "The evidence was made with other code than the folder holds.", values, at)
    notes = (
        f"Reproduced at isolation level {facts.isolation}.",
        *(() if facts.isolation.startswith(NO_WALLS) else (SEEN,)),
    )
    return Outcome(Verdict.PASS, "The evidence was made with the folder's code.", values, at, notes)


@rule(
    "PG801",
    "seed-failed",
    family=FAMILY,
    status=Status.SETTLED,
    authority=DISQUALIFIED,
    needs=Evidence.REPRODUCTION,
)
def seed_failed(submission: Submission) -> Outcome | None:
    """A seed did not end with an artifact and a score.

    What it checks:
        That each seed's run ended by itself within its limits, with exit status 0, a finite val_bpb and an artifact on
        disk. A crash that this machine explains (no CUDA device, a package that is not installed here) is undecided:
        it says nothing about the submission.

    Why it matters:
        A script must train and run within the limits, in the folder in which it is published (README); what does not
        run cannot be verified.

    Evidence:
        `seed-N/run.json` and `seed-N/train.log` of the evidence directory.

    How to fix:
        Read the log beside the file named in the finding. Run the script in an empty folder with its own files only.
    """
    facts = current(submission)
    if facts is None:
        return None
    if not facts.seeds:
        return Outcome(Verdict.UNDECIDED, "No seed has been run to its end yet.", {}, (Location("plan.json"),))
    failed = [seed for seed in facts.seeds if seed.outcome != "ok"]
    values: dict[str, Value] = {"seeds": len(facts.seeds), "failed_seeds": len(failed)}
    if not failed:
        return Outcome(Verdict.PASS, f"All {len(facts.seeds)} seeds ended with an artifact and a score.", values)
    told = "; ".join(f"seed {seed.seed}: {_failure(seed)}" for seed in failed)
    verdict = worst(tuple(Verdict.UNDECIDED if seed.machine_lacks else Verdict.FAIL for seed in failed))
    at = tuple(Location(f"seed-{seed.seed}/run.json", pointer="/outcome") for seed in failed)
    return Outcome(verdict, f"{len(failed)} of {len(facts.seeds)} seeds failed: {told}.", values, at)


@rule(
    "PG802",
    "claim-not-reproduced",
    family=FAMILY,
    status=Status.SETTLED,
    authority=DISQUALIFIED,
    needs=Evidence.REPRODUCTION,
)
def claim_not_reproduced(submission: Submission) -> Outcome | None:
    """The measured val_bpb is worse than the claimed one by more than chance and more than the margin.

    What it checks:
        Mean val_bpb over the seeds that ran against the claimed mean (of the same seeds, where the folder states them
        seed by seed). It fails when the measured mean is worse by more than 0.005 nats per token (turned into bits per
        byte by the measured ratio of the two) plus three standard errors of the difference; worse than the margin, but
        within the errors, or with a single seed and no stated deviation, it warns. Values are compared only when data,
        limits and settings are the claim's and the number of steps is within 5% of the claimed one: under a wallclock
        limit another machine trains another number of steps, and then the rule is undecided.

    Why it matters:
        "Any non-reproducible results can be disqualified" (README).

    Evidence:
        `seed-N/train.log` of the evidence directory; submission.json.

    How to fix:
        Publish the mean over all seeds with its deviation, from the shipped script, with the settings under
        `reproduction` in submission.json.
    """
    facts = current(submission)
    if facts is None:
        return None
    measured = ended_well(facts)
    if not measured:
        return None  # PG801 says why
    reason = _not_comparable(facts, measured, submission)
    claimed = _claimed_bpb(submission, measured)
    margin = _margin_bpb(measured)
    if reason or isinstance(claimed, Missing) or isinstance(margin, Missing):
        problem = reason or reason_of((claimed, margin))
        return Outcome(Verdict.UNDECIDED, f"The claimed val_bpb was not compared: {problem}.", _means(measured))
    return _compare(_bpbs(measured), claimed, submission.claims.val_bpb_std, margin)


@rule(
    "PG803",
    "artifact-not-rebuilt",
    family=FAMILY,
    status=Status.SETTLED,
    authority=REPRODUCIBLE,
    needs=Evidence.REPRODUCTION,
)
def artifact_not_rebuilt(submission: Submission) -> Outcome | None:
    """Packing the saved weights again, in a fresh process, gave other bytes than the artifact.

    What it checks:
        Where submission.json declares under `reproduction` where the weights are and how to pack them (`weights`,
        `repack`), the script is started again with them in a new folder; the new artifact must equal the first one byte
        for byte. Without the declaration the rule is undecided.

    Why it matters:
        "The artifact must be fully self-contained and reproducible" (README). Bytes that only the training process
        could produce may carry anything else that this process has seen.

    Evidence:
        `seed-N/run.json`: both hashes; `seed-N/repack.log`.

    How to fix:
        Make packing a function of the weights alone: no time stamps, no random choices, one order of tensors.
    """
    facts = current(submission)
    if facts is None:
        return None
    seeds = ended_well(facts)
    different = [seed for seed in seeds if isinstance(seed.repacked, Located) and not seed.repacked.value]
    if different:
        told = "; ".join(f"seed {seed.seed}: {seed.repack_detail}" for seed in different)
        at = tuple(Location(f"seed-{seed.seed}/run.json", pointer="/repack") for seed in different)
        return Outcome(Verdict.FAIL, f"The artifact was not rebuilt from the saved weights: {told}.", {}, at)
    if not seeds:
        return None  # PG801 says why
    missing = [seed.repacked for seed in seeds if isinstance(seed.repacked, Missing)]
    if missing:
        return undecided("The artifact was not rebuilt", reason_of(missing), *missing)
    message = f"Repacking the saved weights gave the same bytes for {_seeds(seeds)}."
    return Outcome(Verdict.PASS, message, {"rebuilt_seeds": len(seeds)})


@rule(
    "PG804",
    "rescore-differs",
    family=FAMILY,
    status=Status.SETTLED,
    authority=f"{REPRODUCIBLE}; no training data in evaluation",
    needs=Evidence.REPRODUCTION,
)
def rescore_differs(submission: Submission) -> Outcome | None:
    """Scoring the artifact again, from disk, without training data, gave another val_bpb.

    What it checks:
        Where submission.json declares how to score an existing artifact (`reproduction.evaluate`), the script is
        started again in a folder that holds nothing but the code and the artifact, with a dataset folder that holds
        the validation shards only. The value must be the same: up to 0.000001 BPB it passes, up to 0.0001 it warns
        (numeric noise), beyond that, or when the script cannot score at all, it fails. Without the declaration it
        is undecided.

    Why it matters:
        "No external downloads, training dataset access, or network calls are allowed during evaluation. The artifact
        must be fully self-contained and reproducible" (README). A score that only the training process can produce is
        not the artifact's.

    Evidence:
        `seed-N/train.log` and `seed-N/rescore.log` of the evidence directory.

    How to fix:
        Evaluate the model that was read back from the file; keep no state of training.
    """
    facts = current(submission)
    if facts is None:
        return None
    seeds = ended_well(facts)
    outcomes = [_rescored(seed) for seed in seeds]
    if not outcomes:
        return None  # PG801 says why
    verdict = worst(tuple(outcome.verdict for outcome in outcomes))
    chosen = [outcome for outcome in outcomes if outcome.verdict is verdict]
    at = tuple(location for outcome in chosen for location in outcome.locations)
    # The same reason for every seed is said once.
    message = " ".join(dict.fromkeys(outcome.message for outcome in chosen))
    if verdict is Verdict.PASS:
        message = f"Scored again from disk, without training data: the same val_bpb for {_seeds(seeds)}."
    return Outcome(verdict, message, {"rescored_seeds": len(outcomes)}, at)


def _failure(seed: SeedMeasurement) -> str:
    lacks = f" (this machine lacks {seed.machine_lacks})" if seed.machine_lacks else ""
    return f"{seed.outcome}, {seed.detail}{lacks}" if seed.detail else f"{seed.outcome}{lacks}"


def _seeds(seeds: Sequence[SeedMeasurement]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(str(seed.seed) for seed in seeds)


def _seed_count(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _bpbs(seeds: Sequence[SeedMeasurement]) -> list[Located[float]]:
    return [seed.val_bpb for seed in seeds if isinstance(seed.val_bpb, Located)]


def _means(seeds: Sequence[SeedMeasurement]) -> dict[str, Value]:
    values = [fact.value for fact in _bpbs(seeds)]
    return {"measured_mean_bpb": statistics.fmean(values)} if values else {}


def _not_comparable(facts: ReproductionFacts, seeds: Sequence[SeedMeasurement], submission: Submission) -> str:
    """Why measured and claimed values must not be compared, or ""."""
    if isinstance(facts.comparable, Missing):
        return facts.comparable.reason
    if not facts.comparable.value:
        return "; ".join(facts.differences)
    return _steps_differ(seeds, submission)


def _steps_differ(seeds: Sequence[SeedMeasurement], submission: Submission) -> str:
    claims = [row.steps for row in submission.claims.seeds] + [run.steps for run in submission.runs]
    claimed = [steps.value for steps in claims if isinstance(steps, Located) and steps.value > 0]
    measured = [seed.steps.value for seed in seeds if isinstance(seed.steps, Located)]
    if not claimed or not measured:
        return "the number of steps is not known on both sides"
    ratio = statistics.fmean(measured) / statistics.fmean(claimed)
    if abs(ratio - 1.0) <= STEPS_TOLERANCE:
        return ""
    return f"{statistics.fmean(measured):.0f} steps were trained here, {statistics.fmean(claimed):.0f} for the claim"


def _claimed_bpb(submission: Submission, measured: Sequence[SeedMeasurement]) -> Fact[float]:
    """The claimed mean of the measured seeds where each is stated, the headline otherwise."""
    stated = {
        row.seed.value: row.val_bpb
        for row in submission.claims.seeds
        if isinstance(row.seed, Located) and isinstance(row.val_bpb, Located)
    }
    rows = [stated[seed.seed] for seed in measured if seed.seed in stated]
    if rows and len(rows) == len(measured):
        return Located(statistics.fmean(row.value for row in rows), rows[0].location)
    return submission.claims.val_bpb


def _margin_bpb(measured: Sequence[SeedMeasurement]) -> Fact[float]:
    """0.005 nats per token in bits per byte, by the measured ratio of the two."""
    for seed in measured:
        if isinstance(seed.val_bpb, Located) and isinstance(seed.val_loss, Located) and seed.val_loss.value > 0:
            ratio = seed.val_bpb.value / seed.val_loss.value
            return Located(EDITIONS[0].margin_nats * ratio, seed.val_loss.location)
    return Missing("no run states val_loss beside val_bpb, so that nats cannot be turned into bits per byte")


def _compare(
    measured: Sequence[Located[float]], claimed: Located[float], claimed_std: Fact[float], margin: Located[float]
) -> Outcome:
    values = [fact.value for fact in measured]
    mean = statistics.fmean(values)
    std = _deviation(values, claimed_std)
    error = None if std is None else std * (2.0 / len(values)) ** 0.5
    difference = mean - claimed.value
    numbers: dict[str, Value] = {
        "measured_mean_bpb": mean,
        "claimed_bpb": claimed.value,
        "difference_bpb": difference,
        "margin_bpb": margin.value,
        "standard_error_bpb": error,
        "seeds": len(values),
    }
    at = (claimed.location, *(fact.location for fact in measured))
    told = f"Measured mean val_bpb {mean:.5f} over {_seed_count(len(values))}, claimed {claimed.value:.5f}"
    if difference <= margin.value:
        return Outcome(
            Verdict.PASS, f"{told}: not worse by more than the margin of {margin.value:.5f} BPB.", numbers, at
        )
    if error is not None and difference > margin.value + NOISE_DEVIATIONS * error:
        return Outcome(
            Verdict.FAIL, f"{told}: worse by {difference:.5f} BPB, more than margin and noise allow.", numbers, at
        )
    return Outcome(
        Verdict.WARN, f"{told}: worse by {difference:.5f} BPB, which may be chance with these seeds.", numbers, at
    )


def _deviation(values: Sequence[float], claimed_std: Fact[float]) -> float | None:
    """The larger of the measured and the claimed deviation between seeds; None when neither is known."""
    stated = [statistics.stdev(values)] if len(values) > 1 else []
    if isinstance(claimed_std, Located):
        stated.append(claimed_std.value)
    return max(stated, default=None)


def _rescored(seed: SeedMeasurement) -> Outcome:
    at = Location(f"seed-{seed.seed}/run.json", pointer="/rescore")
    if seed.rescore_detail:
        return Outcome(
            Verdict.FAIL, f"Seed {seed.seed}: the artifact alone was not scored: {seed.rescore_detail}.", {}, (at,)
        )
    again, first = seed.rescored_val_bpb, seed.val_bpb
    if isinstance(again, Missing) or isinstance(first, Missing):
        return undecided("The artifact was not scored again", reason_of((again, first)), at)
    difference = abs(again.value - first.value)
    both = (first.location, again.location)
    told = f"Seed {seed.seed}: scored again from disk {again.value:.8f} val_bpb, first {first.value:.8f}."
    if difference <= SAME_BPB:
        return Outcome(Verdict.PASS, told, {}, both)
    return Outcome(Verdict.WARN if difference <= NOISE_BPB else Verdict.FAIL, told, {}, both)


RULES: Final[tuple[Rule[Submission], ...]] = (
    evidence_stale,
    seed_failed,
    claim_not_reproduced,
    artifact_not_rebuilt,
    rescore_differs,
    *LIMIT_RULES,
)
