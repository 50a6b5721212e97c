"""PG2xx: seconds of training and evaluation, as logged."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.challenge import EVAL_CAP_SECONDS, TRAIN_CAP_SECONDS
from harness.checks.common import counted, known, listed, of_claimed_seeds, places, reason_of, seed_name, undecided
from harness.facts.legality import Passage
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Outcome, Status, Value, Verdict, rule

FAMILY = "budget"
RECORD_WORLD_SIZE = 8
# The wallclock is read between steps: a run stops up to one step late, and a slow last step or the clock's
# own rounding adds as much again. Half a percent more was never a reason to close a pull request.
OVERSHOOT_STEPS = 2.0
OVERSHOOT_SECONDS = 3.0
# Lines about a text that the model writes to be calibrated on.
_WRITTEN = re.compile(r"generat|autoregressive|self[-_ ]?gen", re.IGNORECASE)


def track(submission: Submission) -> str:
    """`record`, `non-record`, or an empty string when neither submission.json, the README's title nor the path says."""
    if submission.statements.non_record:
        return "non-record"
    told = (known(submission.claims.track) or "", submission.folder)
    for text in map(str.lower, told):
        if re.search(r"non[-_ ]?record|unlimited", text):
            return "non-record"
        if re.search(r"10[-_ ]?min", text):
            return "record"
    return ""


def recalled(submission: Submission, run: Run) -> tuple[Passage, ...]:
    """The calibrations of the code, where each reads training data and nothing else, and surely runs.

    None for a run that tells of a text which the model writes itself: another script made its log.
    """
    found = submission.legality.recalls
    told = [*(each.value for each in run.announced), *(phase.name for phase in run.phases)]
    if any(_WRITTEN.search(text) for text in told):
        return ()
    sure = all(each.proved and each.runs == "live" and each.silent is None for each in found)
    return found if sure and not submission.legality.calibrations else ()


def _untimed(runs: Sequence[Run], timed: Sequence[Run]) -> list[str]:
    """Logs without a time whose seed has no other log with one."""
    seeds = {known(run.seed) for run in timed} - {None}
    return [run.location.path for run in runs if run not in timed and known(run.seed) not in seeds]


def _why_not_binding(run: Run, kind: str) -> str:
    """Why seconds above the cap prove nothing for this run, as a clause; empty when they do."""
    if not kind:
        return "which binds the 10-minute track only, and no track is stated"
    processes = known(run.world_size)
    if processes is None:
        return "which means 8xH100, and the log does not tell on how many processes it ran"
    if processes != RECORD_WORLD_SIZE:
        return f"which means 8xH100, but this run used {processes} processes"
    return ""


@rule("PG201", "training-over-cap", family=FAMILY, status=Status.SETTLED, authority="README, Submission Process")
def training_over_cap(submission: Submission) -> Outcome | None:
    """Training took more than 600 seconds.

    What it checks:
        The training time that each claimed run logs at its last step. Runs stop between steps, so up to two mean
        steps above the cap are normal. It does not apply to non-record submissions, whose compute is free, and it
        decides nothing for runs that do not log eight processes. Up to three seconds above the cap it warns, as it does
        for a log that does not hold the claimed score of its seed. A run that was resumed from a checkpoint is said to
        be one: its time is that of all its parts, as the log adds it up.

    Why it matters:
        Records must "reproducibly run in under 10 minutes on 8xH100s".

    Evidence:
        The last training line of each log.

    How to fix:
        Set MAX_WALLCLOCK_SECONDS to 600 or less and reserve the time of what follows the last step.
    """
    kind = track(submission)
    if kind == "non-record":
        return None
    runs = of_claimed_seeds(submission)
    timed = [run for run in runs if isinstance(run.train_seconds, Located)]
    if not timed:
        return undecided(
            "The training time cannot be told", reason_of(r.train_seconds for r in runs) or "no log was read"
        )
    longest = max(timed, key=lambda run: known(run.train_seconds) or 0.0)
    seconds = known(longest.train_seconds) or 0.0
    values: dict[str, Value] = {"train_seconds": seconds, "cap_seconds": TRAIN_CAP_SECONDS}
    where = places(*(run.train_seconds for run in timed))
    verdict, message = _aside(submission, longest, *_training(longest, seconds, kind))
    untimed = _untimed(runs, timed)
    if verdict is Verdict.PASS and untimed:
        return undecided(message.rstrip("."), f"{listed(untimed)} state no training time", *where)
    return Outcome(verdict, message, values, where)


def _aside(submission: Submission, run: Run, verdict: Verdict, message: str) -> tuple[Verdict, str]:
    """A failure of a log that is not the claimed one of its seed is no more than a warning."""
    if verdict is not Verdict.FAIL or run in counted(submission).runs:
        return verdict, message
    return Verdict.WARN, f"{message} The log {run.location} is not the one that holds the claimed score."


def _training(run: Run, seconds: float, kind: str) -> tuple[Verdict, str]:
    """Verdict and sentence for the longest training."""
    parts = "".join(f", resumed after step {step.value:,}" for step in run.resumed)
    subject = f"Training took {seconds:,.3f} s at most ({seed_name(run)}{parts}); the cap is {TRAIN_CAP_SECONDS:.0f} s"
    excess = seconds - TRAIN_CAP_SECONDS
    if excess <= 0:
        return Verdict.PASS, f"{subject}."
    step = known(run.step_overshoot_seconds)
    if step is not None and excess <= OVERSHOOT_STEPS * step:
        return Verdict.PASS, f"{subject}; {excess:.3f} s more is within two steps of {step:.3f} s."
    doubt = _why_not_binding(run, kind)
    if doubt:
        return Verdict.UNDECIDED, f"{subject}, {doubt}."
    if excess <= OVERSHOOT_SECONDS:
        return Verdict.WARN, f"{subject}; {excess:.3f} s is more than the overshoot of one step."
    if step is None:
        return Verdict.UNDECIDED, f"{subject}, and how long a step takes cannot be told."
    return (
        Verdict.FAIL,
        f"{subject}; {excess:.3f} s more are {excess / step:,.0f} steps of {step:.3f} s; up to two are normal.",
    )


@rule("PG202", "evaluation-over-cap", family=FAMILY, status=Status.SETTLED, authority="README FAQ")
def evaluation_over_cap(submission: Submission) -> Outcome | None:
    """Evaluation took more than 600 seconds.

    What it checks:
        The time of the scored evaluation phases that each claimed run logs. When one phase alone exceeds the cap
        on eight processes, it fails; when only the sum of several does, it warns, because what belongs inside the
        timer is disputed (diagnostics, compilation, table building). Not for non-record submissions.

    Why it matters:
        "We won't accept submissions that take more than 10 minutes on 8xH100 to evaluate (Note: This limit is in
        addition to the 10 minutes of training time allowed!)"

    Evidence:
        The evaluation times in the log.

    How to fix:
        Use a larger stride or fewer adaptation steps; print the time of every evaluation phase.
    """
    kind = track(submission)
    if kind == "non-record":
        return None
    runs = of_claimed_seeds(submission)
    timed = [run for run in runs if isinstance(run.eval_seconds, Located)]
    if not timed:
        return undecided(
            "The evaluation time cannot be told", reason_of(r.eval_seconds for r in runs) or "no log was read"
        )
    longest = max(timed, key=lambda run: known(run.eval_seconds) or 0.0)
    seconds = known(longest.eval_seconds) or 0.0
    values: dict[str, Value] = {"eval_seconds": seconds, "cap_seconds": EVAL_CAP_SECONDS}
    where = places(*(run.eval_seconds for run in timed))
    if seconds > EVAL_CAP_SECONDS:
        return Outcome(*_aside(submission, longest, *_evaluation(longest, seconds, kind)), values, where)
    message = f"Evaluation took {seconds:,.1f} s at most ({seed_name(longest)}); the cap is {EVAL_CAP_SECONDS:.0f} s"
    untimed = _untimed(runs, timed)
    if untimed:
        return undecided(message, f"{listed(untimed)} state no evaluation time", *where)
    return Outcome(Verdict.PASS, f"{message}.", values, where)


def _evaluation(run: Run, seconds: float, kind: str) -> tuple[Verdict, str]:
    """Verdict and sentence for an evaluation whose phases sum to more than the cap."""
    subject = f"Evaluation took {seconds:,.1f} s ({seed_name(run)}); the cap is {EVAL_CAP_SECONDS:.0f} s"
    doubt = _why_not_binding(run, kind)
    if doubt:
        return Verdict.UNDECIDED, f"{subject}, {doubt}."
    alone = _longest_phase(run)
    if alone > EVAL_CAP_SECONDS:
        return Verdict.FAIL, f"{subject}; one phase alone took {alone:,.1f} s."
    return Verdict.WARN, f"{subject}; no phase alone exceeds it, and which phases count is disputed."


def _longest_phase(run: Run) -> float:
    """The longest evaluation that was scored, in seconds; diagnostics left out."""
    timed: Sequence[float] = [known(score.eval_seconds) or 0.0 for score in run.scores if not score.diagnostic]
    return max(timed, default=0.0)


RULES = (training_over_cap, evaluation_over_cap)
