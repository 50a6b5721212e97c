"""PG6xx: what the code shows of the four conditions: causality, normalization, score before update, a single pass."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.analysis.reports import HOLE
from harness.checks.common import counted, listed, places, undecided
from harness.checks.legality_doubt import shown_running, silence, unread_code
from harness.facts.legality import Training
from harness.facts.submission import Submission
from harness.model import Fact, Located, Location, Missing, Outcome, Status, Verdict, rule

FAMILY = "legality"
# The score of a claimed run and the claim may be rounded differently.
SAME_SCORE_BPB = 6e-4
# So many letters of a label have to be written out for the rest of it to be anything.
TELLING_LETTERS = 8
HOLES = 3
_OTHER_RULES = frozenset({"a later epoch is scored", "trained on a part"})
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
        and their order cannot be read, it is undecided; and so it is where only a default switches the training off
        and a log prints a score that speaks of it, or where the logs of the claimed runs lack all that it prints and
        do not state what switches it on. A pass says that nothing was found in the code that runs.

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
    trainings = [each for each in submission.legality.trainings if not each.fresh]
    well = "No training on validation tokens before their score was found in code that runs"
    return _decide(submission, trainings, "trained first", well)


@rule(
    "PG603",
    "scored-after-slot",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#1240; #1336 (context-only SLOT: no ruling); #1017 C1, C3",
)
def scored_after_slot(submission: Submission) -> Outcome | None:
    """A tensor is optimized on the tokens that it is then scored on (SLOT).

    What it checks:
        Gradients of a loss on validation tokens with respect to a tensor that the function makes for the purpose,
        a hidden delta or a bias of the logits. It fails when the tokens that are scored with the tensor are among
        those that it was optimized on: the same data, and no slice or mask that keeps the scored ones out. Where a
        slice or mask of another extent stands in between (context-only SLOT), it warns.

    Why it matters:
        The score of a token may depend on earlier tokens alone. A tensor fitted to a token knows it: on the
        published example, every one of 240 changed targets changed its own prediction (#1240).

    Evidence:
        The place of the gradient, the place of the score, the name that both read, and the settings that switch
        it on.

    How to fix:
        Optimize on tokens that were scored before, and reset what remains of the others.
    """
    trainings = [each for each in submission.legality.trainings if each.fresh]
    well = "No tensor optimized on tokens that it is scored on was found in code that runs"
    decided = _decide(submission, trainings, "trained first", well)
    partial = [each for each in trainings if each.order == "trained on a part" and each.runs == "live"]
    if partial and decided.verdict is not Verdict.FAIL:
        clauses = [f"`{each.function or 'the script'}` at {_gradient(each)}: {each.why}" for each in partial]
        message = f"A tensor is optimized on a part of the tokens of a window and scored on others: {listed(clauses)}."
        note = "Whether SLOT on context tokens alone is allowed was asked (#1336) and never ruled."
        return Outcome(Verdict.WARN, message, {"slot_count": len(partial)}, _places(partial), (*decided.notes, note))
    return decided


@rule(
    "PG606",
    "later-epoch-scored",
    family=FAMILY,
    status=Status.SETTLED,
    authority="#568; #642; #991; #1017 C4",
)
def later_epoch_scored(submission: Submission) -> Outcome | None:
    """The score is that of a later epoch over the same tokens.

    What it checks:
        Loops that train on validation tokens and add to the reported score, and whose counter has no say in which
        tokens are taken: every round after the first scores tokens that were trained on. It fails when the loop is
        known to run more than once and the addition is not kept to the first round.

    Why it matters:
        Each token is scored once, before it is used. Several epochs over tokens that were already scored are
        accepted; reporting the last epoch's loss is not (#568, #642, #991).

    Evidence:
        The gradient, the addition to the score, and the number of rounds.

    How to fix:
        Add to the score in the first epoch only.
    """
    trainings = [each for each in submission.legality.trainings if not each.fresh]
    well = "No later epoch's loss was found in a reported score, in code that runs"
    return _decide(submission, trainings, "a later epoch is scored", well)


def _decide(submission: Submission, trainings: Sequence[Training], order: str, well: str) -> Outcome:
    """Fail the first site that proves an order; undecided where one may; pass, with what never runs in the notes."""
    legality = submission.legality
    if isinstance(legality.script, Missing):
        subject = "Whether validation tokens are trained on cannot be told"
        return undecided(subject, legality.script.reason, legality.script)
    dead = [each for each in trainings if each.order == "never runs" and each.settings]
    notes = tuple(_dead_note(each) for each in dead) if order == "trained first" else ()
    proved = [each for each in trainings if each.order == order and _certain(each, submission)]
    if proved:
        return _fail(proved[0], notes)
    doubtful = {order, "unclear"} if order == "trained first" else {order}
    # Of weights: whether the scored tokens are among the trained ones, the slices do not tell.
    parts = [each for each in trainings if each.order == "trained on a part" and not each.fresh]
    doubts = [each for each in trainings if each.order in doubtful] + (parts if order == "trained first" else [])
    if doubts:
        return _undecided(doubts, submission, notes)
    if order == "trained first" and (shown := _shown(dead, submission)) is not None:
        return shown
    running = [each for each in trainings if each.order not in {"never runs", "unclear", *_OTHER_RULES}]
    reasons = f": {listed(list(dict.fromkeys(each.why for each in running)))}" if running else ""
    where = _places(running) or places(legality.script)
    return unread_code(Outcome(Verdict.PASS, f"{well}{reasons}.", locations=where, notes=notes), submission)


def _shown(dead: Sequence[Training], submission: Submission) -> Outcome | None:
    """Undecided where a log speaks of what a default is said to switch off."""
    for each in dead:
        label = shown_running([setting.value for setting in each.settings], submission)
        if label is not None:
            subject = f"Whether `{each.function or 'the script'}` at {_gradient(each)} trains on validation tokens"
            reason = f"{each.settings[0].value} keeps it from running, but the log speaks of `{label.value}`; {PROBE}"
            return undecided(f"{subject} before their score cannot be told", reason, *each.steps[-1:], label)
    return None


def _certain(training: Training, submission: Submission) -> bool:
    """Whether it runs for certain, and its score is no mere afterthought of the reported one."""
    clear = training.doubt is None and training.silent is None
    return training.runs == "live" and clear and not _afterthought(training, submission)


def _afterthought(training: Training, submission: Submission) -> bool:
    """Whether the claimed score may be another than the one that follows the training."""
    if training.rival and not _claimed_labels(submission):
        return True
    return is_afterthought(training.label, submission)


def is_afterthought(label: str, submission: Submission) -> bool:
    """Whether the logs print the claimed score under other labels than those of a score (empty when unknown)."""
    labels = _claimed_labels(submission)
    return bool(label and labels) and not any(_stands_in(each, label) for each in labels)


def _stands_in(label: str, text: str) -> bool:
    """Whether a label is a word of a print's text; one that any score has is none."""
    if not label or label == "val_bpb":
        return bool(label)
    if re.search(rf"(?<!\w){re.escape(label)}(?:_exact)?(?!\w)", text) is not None:
        return True
    return any(_fills(label, word) for word in text.split() if HOLE in word)


def _fills(label: str, word: str) -> bool:
    """Whether a label is a word with values put into it: `final_int6_roundtrip` is `final_{}_roundtrip`."""
    parts = re.sub(rf"(?:{re.escape(HOLE)})+", HOLE, word.removesuffix("_exact")).split(HOLE)
    if len(parts) > HOLES + 1:
        return False
    telling = sum(letter.isalpha() for part in parts for letter in part) >= TELLING_LETTERS
    return telling and re.fullmatch(r"\S{1,60}".join(map(re.escape, parts)), label) is not None


def _claimed_labels(submission: Submission) -> set[str]:
    """The labels under which the counted runs print a claimed score; those of their headlines when none does."""
    manifest = submission.claims
    facts = [manifest.val_bpb, *(seed.val_bpb for seed in (*manifest.seeds, *submission.readme.seeds))]
    claims = [fact.value for fact in facts if isinstance(fact, Located)]
    runs = counted(submission).runs
    printed = [score for run in runs for score in run.scores if isinstance(score.val_bpb, Located)]
    near = {_label(score.label) for score in printed if _is_near(score.val_bpb, claims)}
    headlines = [run.headline for run in runs]
    return near or {_label(each.value.label) for each in headlines if isinstance(each, Located)}


def _is_near(value: Fact[float], claims: Sequence[float]) -> bool:
    return isinstance(value, Located) and any(abs(value.value - claim) <= SAME_SCORE_BPB for claim in claims)


def _label(text: str) -> str:
    """A label without what tells its exact print from the short one."""
    return text.removesuffix("_exact").strip()


def _fail(training: Training, notes: tuple[str, ...]) -> Outcome:
    where = training.places
    switch = f" It runs because {listed([each.value for each in training.settings], 3)}." if training.settings else ""
    name = f"`{training.function}`" if training.function else "The script"
    message = (
        f"{name} trains on validation tokens at {_gradient(training)}, and the score at {where[-1]} is made with what "
        f"was trained: {training.why}.{switch}"
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
    if training.silent is not None:
        return silence(training.silent)
    if training.order == "trained first" and _afterthought(training, submission):
        return "another score may be the claimed one"
    return training.why


def _dead_note(training: Training) -> str:
    return f"`{training.function}` at {_gradient(training)} never runs: {training.settings[0].value}."


def _gradient(training: Training) -> Location:
    """The gradient itself: in the path, the last place but for the score after it."""
    return next(step.location for step in training.steps if step.value.startswith("gradient"))


def _places(trainings: Sequence[Training]) -> tuple[Location, ...]:
    return tuple(dict.fromkeys(_gradient(each) for each in trainings))


RULES = (trained_before_scored, scored_after_slot, later_epoch_scored)
