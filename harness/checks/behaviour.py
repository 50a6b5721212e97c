"""PG7xx: what the script does when it is run in miniature."""

from __future__ import annotations

from harness.checks.common import listed, undecided
from harness.facts.probe import MiniatureRun, ProbeFacts
from harness.facts.submission import Submission
from harness.model import Evidence, Located, Location, Missing, Outcome, Status, Value, Verdict, rule

FAMILY = "behaviour"
BARE = "bare"


@rule(
    "PG701",
    "script-crashes",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README, Submission Process",
    needs=Evidence.PROBE,
)
def script_crashes(submission: Submission) -> Outcome | None:
    """The script ends with an error of its own.

    What it checks:
        The first miniature run: the script as shipped, under the configuration of the claimed run with smaller sizes,
        on a processor that answers as a CUDA machine. It fails only on a plain error of the script's own: a name or
        an attribute that nothing defines. Any other error may come from the stand-ins, from the small sizes or from a
        package that is not installed here, and leaves it undecided.

    Why it matters:
        "A train log and a script that compiles and runs from within the records folder" (README).

    Evidence:
        The line that raised the error, and its message.

    How to fix:
        Run the shipped script once, as the README says, before submitting.
    """
    facts, run = _bare(submission)
    if isinstance(facts, Missing) or run is None:
        return undecided("Whether the script runs cannot be told", _why_not(facts))
    values = _values(run)
    if run.crash is None:
        if run.ended == "exit" and run.returncode == 0:
            message = f"{facts.script} ran to its end in {run.seconds:.0f} s at {facts.isolation}."
            return Outcome(Verdict.PASS, message, values, (Location(facts.script),))
        return undecided(f"{facts.script} was ended before its end", run.reason, Location(facts.script))
    crash = run.crash.value
    # A module that is not here may be a package that nobody named: PG008 judges what the folder lacks.
    certain = crash.blame == "script" and not crash.error.startswith("ModuleNotFoundError")
    if certain:
        message = f"{facts.script} ends with an error of its own: {crash.error} ({crash.reason})."
        return Outcome(Verdict.FAIL, message, values, (run.crash.location,))
    refused = f"; it asks for {listed(run.refused)}" if run.refused else ""
    told = f"{crash.reason}{refused}"
    return undecided(f"{facts.script} ended with {crash.error}", told, run.crash)


@rule(
    "PG702",
    "metric-not-reached",
    family=FAMILY,
    status=Status.POLICY,
    authority="README, Submission Process",
    needs=Evidence.PROBE,
)
def metric_not_reached(submission: Submission) -> Outcome | None:
    """The script runs to its end and prints no score.

    What it checks:
        The first miniature run prints a final score in a form that is read from logs too. A run that ended before
        its end is undecided, with the reason, and so is one that prints bits per byte in another form.

    Why it matters:
        The README asks for "a train log, automatically produced by your script": a script that prints no score has
        not produced one. The small configuration may leave an evaluation out: hence a warning.

    Evidence:
        The output of the run.

    How to fix:
        Ship the script that made the logs, whole.
    """
    facts, run = _bare(submission)
    if isinstance(facts, Missing) or run is None:
        return undecided("Whether the script reaches its score cannot be told", _why_not(facts))
    values = _values(run)
    if isinstance(run.val_bpb, Located):
        approximate = f" Approximated: {listed(run.approximated)}." if run.approximated else ""
        message = f"The miniature run printed {run.val_bpb.value:.4f} BPB, a number of its small world.{approximate}"
        return Outcome(Verdict.PASS, message, values, (Location(facts.script),))
    if run.unread:
        why = f"it prints what may be one in a form that is not read ({run.unread})"
        return undecided("Whether the script reaches its score cannot be told", why, Location(facts.script))
    if run.ended == "exit" and run.returncode == 0:
        message = f"{facts.script} ran to its end and printed no final score."
        return Outcome(Verdict.WARN, message, values, (Location(facts.script),))
    why = run.crash.value.error if run.crash is not None else run.reason
    return undecided("The miniature run did not reach a score", why, Location(facts.script))


@rule(
    "PG703",
    "artifact-depends-on-validation",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README FAQ; #44; #64; #262; #728; #1017 C3",
    needs=Evidence.PROBE,
)
def artifact_depends_on_validation(submission: Submission) -> Outcome | None:
    """The artifact changes when the validation text does.

    What it checks:
        Non-interference: the script is run twice in miniature, with two validation shards of different text and the
        same length, everything else being equal. The file whose size the script prints as that of its model must be
        the same, byte for byte. Where it is not, the first run is repeated: only where that gives the first artifact
        again does the rule fail.

    Why it matters:
        "You CANNOT access validation data during training" (README), nor calibrate the quantizer on it (#728): what
        is in the artifact knows the validation text before any of it is scored.

    Evidence:
        The runs, side by side, in the evidence directory; the same command gives them again.

    How to fix:
        Train, select and calibrate on training data; adapt to validation tokens after the artifact is read back, each
        after its score.
    """
    facts = submission.probe
    subject = "Whether the artifact depends on the validation text cannot be told"
    if isinstance(facts, Missing):
        return undecided(subject, facts.reason)
    found = facts.non_interference
    if isinstance(found, Missing):
        return undecided(subject, found.reason, Location(facts.script))
    experiment = found.value
    values: dict[str, Value] = {"artifact": experiment.subject, "run_count": len(facts.runs)}
    where = (Location(facts.script),)
    if experiment.result == "same":
        return Outcome(Verdict.PASS, f"In miniature, {experiment.reason} ({experiment.subject}).", values, where)
    if experiment.result == "depends":
        message = f"In miniature, {experiment.subject} depends on the validation text: {experiment.reason}."
        return Outcome(Verdict.FAIL, message, values, where)
    return undecided(subject, experiment.reason, *where)


def _bare(submission: Submission) -> tuple[ProbeFacts | Missing, MiniatureRun | None]:
    facts = submission.probe
    if isinstance(facts, Missing):
        return facts, None
    return facts, next((run for run in facts.runs if run.name == BARE), None)


def _why_not(facts: ProbeFacts | Missing) -> str:
    return facts.reason if isinstance(facts, Missing) else "the evidence holds no run of the script"


def _values(run: MiniatureRun) -> dict[str, Value]:
    bits = run.val_bpb.value if isinstance(run.val_bpb, Located) else None
    return {"seconds": round(run.seconds, 1), "peak_memory_bytes": run.peak_memory_bytes, "miniature_bpb": bits}


RULES = (script_crashes, metric_not_reached, artifact_depends_on_validation)
