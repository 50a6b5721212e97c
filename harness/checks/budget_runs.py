"""PG204, PG206, PG207: what the logs show of a run beside its seconds: untimed work, its setting, its machine."""

from __future__ import annotations

import math

from harness.challenge import TRAIN_CAP_SECONDS
from harness.checks.budget import FAMILY, RECORD_WORLD_SIZE, recalled, track
from harness.checks.common import known, listed, many, of_claimed_seeds, places, reason_of, seed_name, undecided
from harness.facts.phasekinds import ARTIFACT, CALIBRATION, SUM
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located, Outcome, Status, Value, Verdict, rule

SETTING = "max_wallclock_seconds"
RECORD_DEVICE = "H100"
LINE_CHARACTERS = 90


@rule("PG204", "untimed-phase", family=FAMILY, status=Status.SETTLED, authority="#609 and about 15 closures")
def untimed_phase(submission: Submission) -> Outcome | None:
    """The log shows a calibration after training and does not say how long it took.

    What it checks:
        Lines by which a claimed run begins to collect Hessians, to generate calibration text or to calibrate, after
        its last training step, and which no later line times. It warns when training had already used its 600
        seconds and the line says that training data is read, or the code calibrates on training data and on nothing
        else; otherwise the time is undecided.

    Why it matters:
        Nothing is untimed: calibration fits in the training or in the evaluation time, and training data may not be
        read in evaluation. Submissions that calibrated on training data after their 600 seconds were closed.

    Evidence:
        The line that announces the work, the training time before it, and the call with training data.

    How to fix:
        Print how long each phase took, and reserve that time before the end of training.
    """
    if track(submission) == "non-record":
        return None
    runs = [run for run in of_claimed_seeds(submission) if known(run.world_size) in {None, RECORD_WORLD_SIZE}]
    if not runs:
        return None
    found = [(run, lines) for run in runs if (lines := _untimed(run))]
    if not found:
        return Outcome(Verdict.PASS, f"No calibration stands untimed in {many(len(runs), 'log')}.")
    late = [(run, lines) for run, lines in found if _used_up(run) and (recalled(submission, run) or _named(lines))]
    run, lines = (late or found)[0]
    called = recalled(submission, run)
    seconds = known(run.train_seconds)
    subject = f"{seed_name(run)} announces `{lines[0].value[:LINE_CHARACTERS]}` after training, and no line times it"
    where = places(*(line for _, each in found for line in each), run.train_seconds)
    if late and seconds is not None:
        message = f"{subject}; training had used {seconds:,.3f} s of {TRAIN_CAP_SECONDS:.0f} s by then"
        message += f", and `{called[0].what}` reads training data." if called else "."
        steps = places(*(step for each in called[:1] for step in each.steps))
        return Outcome(Verdict.WARN, message, {"train_seconds": seconds}, (*where, *steps))
    left = "" if seconds is None else f"; training took {seconds:,.3f} s of {TRAIN_CAP_SECONDS:.0f} s"
    return undecided("The time of calibration cannot be told", f"{subject}{left}", *where)


def _untimed(run: Run) -> list[Located[str]]:
    """The announcements after training that no timed calibration, and no sum over it, follows."""
    # What a log times as quantization may hold the collecting before it.
    timed = [
        phase.location.line or 0
        for phase in run.phases
        if phase.kind in {CALIBRATION, SUM} or (phase.kind == ARTIFACT and "gptq" in phase.name.lower())
    ]
    trained = _trained_line(run)
    return [
        line
        for line in run.announced
        if (line.location.line or 0) > trained and not any(place > (line.location.line or 0) for place in timed)
    ]


def _trained_line(run: Run) -> float:
    """The line of the run's training time; infinite where the log tells none, so that nothing comes after it."""
    fact = run.train_seconds
    return fact.location.line or 0 if isinstance(fact, Located) else math.inf


def _used_up(run: Run) -> bool:
    """Whether training had used up its time."""
    return (known(run.train_seconds) or 0.0) >= TRAIN_CAP_SECONDS


def _named(lines: list[Located[str]]) -> bool:
    """Whether a line says that training data is read."""
    return any("train" in line.value.lower() for line in lines)


@rule(
    "PG206", "wallclock-setting-over-cap", family=FAMILY, status=Status.POLICY, authority="README, Submission Process"
)
def wallclock_setting_over_cap(submission: Submission) -> Outcome | None:
    """A claimed run was set to train for longer than 600 seconds.

    What it checks:
        `max_wallclock_seconds` as the claimed seeds' logs print it. Zero switches the limit off and is not judged
        here, and a training time above the cap is the matter of PG201. For the record track only.

    Why it matters:
        Records must "reproducibly run in under 10 minutes on 8xH100s". A higher setting means that the schedule, too,
        was laid out for more time, and that nothing stops a slower machine at the cap.

    Evidence:
        The logged setting and the training time.

    How to fix:
        Run with MAX_WALLCLOCK_SECONDS=600 or less.
    """
    if track(submission) != "record":
        return None
    runs = [run for run in of_claimed_seeds(submission) if not run.evaluation_only]
    stated = [(run, value, run.config[SETTING]) for run in runs if (value := _setting(run)) is not None]
    trained = [seconds for run in runs if (seconds := known(run.train_seconds)) is not None]
    if not runs:
        return None
    if not stated and not trained:
        reasons = reason_of(run.train_seconds for run in runs)
        return undecided("The limit of the training time cannot be told", reasons, *(run.location for run in runs))
    values: dict[str, Value] = {"cap_seconds": TRAIN_CAP_SECONDS, "train_seconds": max(trained, default=None)}
    took = f"; training took {max(trained):,.3f} s at most" if trained else ""
    if not stated:
        where = places(*(run.train_seconds for run in runs))
        return Outcome(Verdict.PASS, f"No log states `{SETTING}`{took}.", values, where)
    run, seconds, fact = max(stated, key=lambda item: item[1])
    values["max_wallclock_seconds"] = seconds
    message = (
        f"The largest `{SETTING}` is {seconds:,.1f} s ({seed_name(run)}); the cap is {TRAIN_CAP_SECONDS:.0f} s{took}."
    )
    verdict = Verdict.WARN if seconds > TRAIN_CAP_SECONDS else Verdict.PASS
    return Outcome(verdict, message, values, places(fact))


def _setting(run: Run) -> float | None:
    """The run's limit in seconds; None where the log does not print one as a number."""
    fact = run.config.get(SETTING)
    try:
        value = float(fact.value) if fact is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@rule("PG207", "other-hardware", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def other_hardware(submission: Submission) -> Outcome | None:
    """A claimed run was made on another machine than 8xH100.

    What it checks:
        The number of processes that the claimed seeds' logs print, and the graphics cards in the driver's table
        where a log holds one. It warns for another number than eight and for any other card. For the record track.

    Why it matters:
        Records must "reproducibly run in under 10 minutes on 8xH100s". Seconds from another machine do not show
        that: the claim is to be rerun.

    Evidence:
        The log's `world_size` and its table of devices.

    How to fix:
        Run the submitted seeds on eight H100, or submit to the non-record track.
    """
    if track(submission) != "record":
        return None
    runs = of_claimed_seeds(submission)
    if not runs:
        return None
    few = [run.world_size for run in runs if known(run.world_size) not in {None, RECORD_WORLD_SIZE}]
    other = [device for run in runs for device in run.devices if RECORD_DEVICE not in device.value]
    listed_cards = [device for run in runs for device in run.devices]
    told = [run.world_size for run in runs if isinstance(run.world_size, Located)]
    counts = sorted({count for fact in few if (count := known(fact)) is not None})
    names = sorted({device.value for device in other})
    values: dict[str, Value] = {"processes": list(counts), "devices": list(names)}
    if few or other:
        parts = ["1 process" if count == 1 else f"{count} processes" for count in counts]
        message = f"The logs tell of {listed([*parts, *names])}: their seconds do not compare with 8xH100."
        return Outcome(Verdict.WARN, message, values, places(*few, *other))
    if not told and not listed_cards:
        reasons = reason_of(run.world_size for run in runs)
        return undecided("The machine cannot be told", reasons, *(run.location for run in runs))
    cards = "" if listed_cards else "; no log names the card"
    message = f"Eight processes in {len(told)} of {many(len(runs), 'log')}{cards}."
    return Outcome(Verdict.PASS, message, values, places(*told, *listed_cards[:1]))


RULES = (untimed_phase, wallclock_setting_over_cap, other_hardware)
