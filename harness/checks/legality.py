"""PG6xx: what the code shows of the four conditions: causality, normalization, score before update, a single pass."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks.common import counted, listed, places, undecided
from harness.facts.legality import Training
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Verdict, rule

FAMILY = "legality"
PROBE = "run `harness probe`, which watches the order of scores and updates"


@rule(
    "PG601",
    "trained-before-scored",
    family=FAMILY,
    status=Status.SETTLED,
    authority="README FAQ; #402; #677; #1017 C3",
)
def trained_before_scored(submission: Submission) -> Outcome | None:
    """The model is trained on validation tokens, and their score is reported afterwards.

    What it checks:
        Every gradient of a loss that comes from validation tokens, followed through calls under the run's own
        configuration (logged hyperparameters, then the README's command, then defaults). It fails when such
        training runs to its end, its weights are kept, and a score of validation tokens is printed after it. A
        loop that scores tokens first and then trains on them passes. Where scoring and training share a function
        and their order cannot be read, it is undecided.

    Why it matters:
        "You CANNOT access validation data during training" and "you are only allowed to test-time train on
        validation set tokens you've already evaluated your model on, since those tokens have already been graded!"
        (README). A model that has seen the tokens predicts them too well.

    Evidence:
        The path: where the validation files are named, each call, the gradient, the score; and the settings that
        switch it on. Code that the settings switch off is named in the notes.

    How to fix:
        Score each chunk before training on it, and report that first score; or leave the training out.
    """
    legality = submission.legality
    if isinstance(legality.script, Missing):
        return undecided(
            "Whether validation tokens are trained on cannot be told", legality.script.reason, legality.script
        )
    notes = tuple(_dead_note(each) for each in legality.trainings if each.order == "never runs" and each.settings)
    running = [each for each in legality.trainings if each.order != "never runs"]
    proved = [each for each in running if _proves(each, submission)]
    if proved:
        return _fail(proved[0], notes)
    open_ones = [each for each in running if each.order in {"trained first", "unclear"}]
    if open_ones:
        return _undecided(open_ones, submission, notes)
    message = _all_well(running)
    return Outcome(Verdict.PASS, message, locations=_places(running) or places(legality.script), notes=notes)


def _proves(training: Training, submission: Submission) -> bool:
    """Whether nothing is left open: it runs for certain, and the score that follows is not a mere afterthought."""
    certain = training.order == "trained first" and training.runs == "live" and training.doubt is None
    return certain and not _afterthought(training, submission)


def _afterthought(training: Training, submission: Submission) -> bool:
    """Whether the logs' headline is printed under another label than the score that follows the training."""
    labels = {_label(run.headline.value.label) for run in counted(submission).runs if isinstance(run.headline, Located)}
    return bool(labels) and not any(label and label in training.label for label in labels)


def _label(text: str) -> str:
    """A label without what tells its exact print from the short one."""
    return text.removesuffix("_exact").strip()


def _fail(training: Training, notes: tuple[str, ...]) -> Outcome:
    where = training.places
    switch = f" It runs because {training.settings[0].value}." if training.settings else ""
    name = f"`{training.function}`" if training.function else "The script"
    message = (
        f"{name} trains on validation tokens at {where[-2]}, and the score at {where[-1]} is reported with the "
        f"weights that it made.{switch}"
    )
    return Outcome(Verdict.FAIL, message, {"step_count": len(where)}, (*where[-2:], *where[:-2]), notes)


def _undecided(trainings: Sequence[Training], submission: Submission, notes: tuple[str, ...]) -> Outcome:
    clauses = [
        f"`{each.function or 'the script'}` at {_gradient(each)} ({_open(each, submission)})" for each in trainings
    ]
    subject = "Validation tokens are trained on, and whether they were scored before cannot be told"
    message = f"{subject}: {listed(clauses)}; {PROBE}."
    return Outcome(Verdict.UNDECIDED, message, {"training_count": len(trainings)}, _places(trainings), notes)


def _open(training: Training, submission: Submission) -> str:
    """What keeps a training site from being decided."""
    if training.runs == "unknown":
        return f"it depends on {listed(training.unclear)}" if training.unclear else "whether it runs is unclear"
    if training.doubt is not None:
        return f"the text at {training.doubt.location} says {training.doubt.value}"
    if training.order == "trained first" and _afterthought(training, submission):
        return "the logs report a score of another name"
    return training.why


def _dead_note(training: Training) -> str:
    return f"`{training.function}` at {_gradient(training)} never runs: {training.settings[0].value}."


def _gradient(training: Training) -> Location:
    """The gradient itself: in the path, the last place but for the score after it."""
    return next(step.location for step in training.steps if step.value.startswith("gradient"))


def _places(trainings: Sequence[Training]) -> tuple[Location, ...]:
    return tuple(dict.fromkeys(_gradient(each) for each in trainings))


def _all_well(trainings: Sequence[Training]) -> str:
    if not trainings:
        return "No gradient is taken of a loss on validation tokens."
    return f"Validation tokens are trained on only where that is allowed: {trainings[0].why}."


RULES = (trained_before_scored,)
