"""PG203, PG205: the same seconds under every reading of what the two budgets hold."""

from __future__ import annotations

from collections.abc import Sequence

from harness.challenge import EVAL_CAP_SECONDS, TRAIN_CAP_SECONDS
from harness.checks.budget import FAMILY, OVERSHOOT_SECONDS, RECORD_WORLD_SIZE, recalled, track
from harness.checks.common import known, of_claimed_seeds, places, reason_of, seed_name, undecided
from harness.facts.legality import Passage
from harness.facts.phasekinds import BESIDE_EVALUATION, CALIBRATION
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Location, Outcome, Status, Value, Verdict, rule


def seconds_of(run: Run, *kinds: str) -> float:
    """What the phases of some kinds took; those that the scored time holds already are left out."""
    return sum(phase.seconds for phase in run.phases if phase.kind in kinds and not phase.counted)


def _on_record_machine(run: Run) -> bool:
    """Whether the run's seconds are comparable; a log that does not tell its processes is given the benefit."""
    return known(run.world_size) in {None, RECORD_WORLD_SIZE}


@rule(
    "PG203", "calibration-outside-budget", family=FAMILY, status=Status.DISPUTED, authority="#609 and about 15 closures"
)
def calibration_outside_budget(submission: Submission) -> Outcome | None:
    """Calibration fits neither into the training time nor into the evaluation time.

    What it checks:
        The calibration that each claimed run times (Hessians collected, calibration text generated), added to the
        logged training time, and to the logged evaluation time. It warns when both sums are above their cap; three
        seconds of overshoot of the training cap are left aside. Where the code calibrates on training data and on
        nothing else, the evaluation time, in which none may be read, has no room for it. Artifact production is not
        added.

    Why it matters:
        Nothing is untimed: calibration has to fit in one of the two budgets, and submissions that read training
        data after their time were closed. Which budget it belongs to is read differently, hence a warning.

    Evidence:
        The timed phases of the log, its training time and its evaluation time, and the call with training data.

    How to fix:
        Stop training earlier by the time of the calibration, and print how long it took.
    """
    if track(submission) == "non-record":
        return None
    runs = of_claimed_seeds(submission)
    if not runs:
        return undecided("The time of calibration cannot be told", "no log was read")
    timed = [run for run in runs if seconds_of(run, CALIBRATION) and _on_record_machine(run)]
    silent = [run for run in runs if not seconds_of(run, CALIBRATION) and _announces_calibration(run)]
    late = [run for run in timed if recalled(submission, run) and _is_late(run)]
    over = [run for run in timed if _fits_nowhere(run)]
    if late or over:
        return _late(late, recalled(submission, late[0])) if late else _over(over)
    if silent:
        where = places(*(value for run in silent for value in _announcing(run)))
        subject = f"The time of calibration cannot be told for {seed_name(silent[0])}"
        return undecided(subject, "its settings ask for a calibration that the log does not time", *where)
    if not timed:
        return Outcome(Verdict.PASS, "No log times a calibration on the machine of a record, or announces one.")
    return _within(timed)


def _within(timed: Sequence[Run]) -> Outcome:
    """The outcome where no calibration is shown to fit nowhere."""
    longest = max(timed, key=lambda run: seconds_of(run, CALIBRATION))
    calibration = seconds_of(longest, CALIBRATION)
    where = _phase_places(timed, CALIBRATION)
    message = f"Calibration took {calibration:,.1f} s at most ({seed_name(longest)})"
    unread = [run for run in timed if not _fits(run)]
    if unread:
        reasons = reason_of([*(run.train_seconds for run in unread), *(run.eval_seconds for run in unread)])
        return undecided(f"{message}, and whether that fits in a budget cannot be told", reasons, *where)
    values: dict[str, Value] = {"calibration_seconds": calibration}
    return Outcome(Verdict.PASS, f"{message}, which fits in the training or the evaluation time.", values, where)


def _fits(run: Run) -> bool:
    """Whether calibration fits on top of training or of evaluation, as far as the log tells their times."""
    train, scored, calibration = known(run.train_seconds), known(run.eval_seconds), seconds_of(run, CALIBRATION)
    in_training = train is not None and not _is_late(run)
    return in_training or (scored is not None and scored + calibration <= EVAL_CAP_SECONDS)


def _is_late(run: Run) -> bool:
    """Whether the training time is known and calibration does not fit on top of it."""
    train = known(run.train_seconds)
    return train is not None and train + seconds_of(run, CALIBRATION) > TRAIN_CAP_SECONDS + OVERSHOOT_SECONDS


def _fits_nowhere(run: Run) -> bool:
    """Whether both times are known and calibration fits on top of neither."""
    told = isinstance(run.train_seconds, Located) and isinstance(run.eval_seconds, Located)
    return told and not _fits(run)


def _late(late: Sequence[Run], called: Sequence[Passage]) -> Outcome:
    """The outcome where calibration reads training data after the training time."""
    run = late[0]
    train, more = known(run.train_seconds) or 0.0, seconds_of(run, CALIBRATION)
    message = (
        f"Calibration of {more:,.1f} s ({seed_name(run)}) reads training data (`{called[0].what}`) and does not fit "
        f"in the training time: with it {train + more:,.1f} s; the cap is {TRAIN_CAP_SECONDS:.0f} s."
    )
    where = (*_phase_places(late, CALIBRATION), *places(run.train_seconds, *called[0].steps))
    return Outcome(Verdict.WARN, message, {"train_seconds": train, "calibration_seconds": more}, where)


def _over(over: Sequence[Run]) -> Outcome:
    run = over[0]
    train, scored, more = known(run.train_seconds) or 0.0, known(run.eval_seconds) or 0.0, seconds_of(run, CALIBRATION)
    values: dict[str, Value] = {"train_seconds": train, "eval_seconds": scored, "calibration_seconds": more}
    message = (
        f"Calibration of {more:,.1f} s ({seed_name(run)}) fits in no budget: with training {train + more:,.1f} s, "
        f"with evaluation {scored + more:,.1f} s; the caps are {TRAIN_CAP_SECONDS:.0f} s each."
    )
    where = (*_phase_places(over, CALIBRATION), *places(run.train_seconds, run.eval_seconds))
    return Outcome(Verdict.WARN, message, values, where)


def _announcing(run: Run) -> list[Located[str]]:
    """Settings that ask for a calibration pass: batches or samples of it, other than none."""
    return [
        value
        for key, value in run.config.items()
        if "calib" in key and key.endswith(("batches", "samples", "seqs")) and value.value not in {"0", "0.0", "None"}
    ]


def _announces_calibration(run: Run) -> bool:
    """Whether a run that trained was set to calibrate; a log of an evaluation alone repeats settings only."""
    return not run.evaluation_only and bool(_announcing(run))


def _phase_places(runs: Sequence[Run], *kinds: str) -> tuple[Location, ...]:
    return places(*(phase.location for run in runs for phase in run.phases if phase.kind in kinds))


@rule("PG205", "evaluation-over-cap-in-a-reading", family=FAMILY, status=Status.DISPUTED, authority="README FAQ")
def evaluation_over_cap_in_a_reading(submission: Submission) -> Outcome | None:
    """Evaluation is within 600 seconds only as long as compilation, tables and diagnostics are left out.

    What it checks:
        The scored evaluation time of each claimed run, and the same with what else the log times around it:
        adaptation before the scored passes, compilation, precomputed tables, loading the artifact, and diagnostic
        evaluations; and the log's own sum where that is larger. It warns when the scored time fits and a wider reading
        does not.

    Why it matters:
        "We won't accept submissions that take more than 10 minutes on 8xH100 to evaluate". Whether the timer covers
        compilation, table building and diagnostics was never ruled, so each reading is given.

    Evidence:
        The timed phases of the log.

    How to fix:
        Leave diagnostics out of the submitted run, and print one time for all of the evaluation.
    """
    if track(submission) == "non-record":
        return None
    runs = [run for run in of_claimed_seeds(submission) if _on_record_machine(run)]
    timed = [run for run in runs if isinstance(run.eval_seconds, Located)]
    if not timed:
        reasons = reason_of(run.eval_seconds for run in runs) or "no log of eight processes was read"
        return undecided("The readings of the evaluation time cannot be told", reasons)
    widest = max(timed, key=lambda run: _readings(run)[-1][1])
    readings = _readings(widest)
    values: dict[str, Value] = {f"{name.replace(' ', '_')}_seconds": seconds for name, seconds in readings}
    figures = "; ".join(f"{name} {seconds:,.1f} s" for name, seconds in readings)
    where = (*places(*(run.eval_seconds for run in timed)), *_phase_places([widest], *BESIDE_EVALUATION))
    over = [name for name, seconds in readings if seconds > EVAL_CAP_SECONDS]
    message = f"Evaluation ({seed_name(widest)}): {figures}; the cap is {EVAL_CAP_SECONDS:.0f} s"
    if over:
        return Outcome(Verdict.WARN, f"{message}, exceeded as `{'`, `'.join(over)}`.", values, where)
    return Outcome(Verdict.PASS, f"{message}.", values, where)


def _readings(run: Run) -> list[tuple[str, float]]:
    """The evaluation time under each reading, each wider than the one before; equal ones are left out."""
    total = known(run.eval_seconds) or 0.0
    found = [("scored", total)]
    for kind in BESIDE_EVALUATION:
        more = seconds_of(run, kind)
        total += more
        found += [(f"with {kind}", total)] if more else []
    own = max((phase.seconds for phase in run.phases if phase.name.startswith("total_eval_")), default=0.0)
    return [*found, ("as the log sums it", own)] if own > total else found


RULES = (calibration_outside_budget, evaluation_over_cap_in_a_reading)
