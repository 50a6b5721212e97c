"""PG602, PG604, PG605: uses of validation tokens beside training on them; PG610: what the program reaches outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from harness.checks.common import counted, listed, many, places, undecided
from harness.checks.legality import FAMILY, PROBE, is_afterthought
from harness.checks.legality_doubt import silence, unread_code
from harness.facts.legality import ONLY_EVALUATES, Passage
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Verdict, rule

_Clause: TypeAlias = Callable[[Passage], str]


@rule("PG602", "scored-twice", family=FAMILY, status=Status.SETTLED, authority="#846; #868-#870; #881; #888; #1017 C4")
def scored_twice(submission: Submission) -> Outcome | None:
    """The score comes from a cache that the whole validation split has filled.

    What it checks:
        Objects that count tokens (n-gram tables): whether one call fills such an object from all validation tokens
        and a later call, not in the same loop, scores them with it and gives the returned value.

    Why it matters:
        A single pass from left to right counts. In a second pass the cache holds every token's own future.

    Evidence:
        The filling call, the scoring call, and the settings that switch the second on.

    How to fix:
        Report the first pass, in which the cache holds scored tokens alone.
    """
    legality = submission.legality
    if isinstance(legality.script, Missing):
        subject = "Whether tokens are scored twice cannot be told"
        return undecided(subject, legality.script.reason, legality.script)
    counting = [each for each in legality.rescorings if not is_afterthought(each.label, submission)]
    aside = [each for each in legality.rescorings if each not in counting]
    notes = tuple(f"{_rescored(each)}; the logs report a score of another name." for each in aside)
    well = "No cache filled from all validation tokens and then scored with was found in code that runs."
    found = unread_code(_passages(counting, well, _rescored), submission)
    return dataclasses.replace(found, notes=notes)


@rule(
    "PG604", "trained-on-validation-split", family=FAMILY, status=Status.SETTLED, authority="README FAQ; #44; #64; #262"
)
def trained_on_validation_split(submission: Submission) -> Outcome | None:
    """The training loop reads the validation split.

    What it checks:
        The files that the losses of all gradients come from. It fails when every gradient that runs takes its data
        from files of the validation split and none from the training split; and when a command of the README or of a
        shell script gives a validation shard the name of a training shard and the logs say that there was one
        training shard. Such a command alone warns. A script that takes no gradient shows nothing of its weights'
        training: undecided; one that trains weights which it was given is left to PG601.

    Why it matters:
        "You CANNOT access validation data during training" (README).

    Evidence:
        The place where the validation files are named.

    How to fix:
        Train on the training shards.
    """
    split = submission.legality.training_split
    script = submission.legality.script
    if isinstance(script, Missing):
        return undecided("What is trained on cannot be told", script.reason, script)
    if submission.legality.renamed:
        return _renamed(submission, submission.legality.renamed)
    if split == ONLY_EVALUATES and submission.pipeline.trains:
        return undecided(
            "What the weights were trained on cannot be told", f"{ONLY_EVALUATES.reason}: it only evaluates", script
        )
    if isinstance(split, Missing):
        # Nothing speaks of validation files: the data was merely not followed.
        message = "No training loop that reads the validation split was found in code that runs."
        return unread_code(Outcome(Verdict.PASS, message, locations=places(script)), submission)
    if split.value != "validation":
        return Outcome(Verdict.PASS, "The training loss comes from the training split.", locations=places(script))
    message = f"Every gradient that runs is of a loss on the validation split, named at {split.location}."
    return Outcome(Verdict.FAIL, message, locations=places(split, *_gradients(submission)))


def _renamed(submission: Submission, commands: Sequence[Located[str]]) -> Outcome:
    """A validation shard under the name of a training shard: proved where it was the only one."""
    first = commands[0]
    told = f"`{first.value}` at {first.location} gives a shard of the validation split the name of a training shard"
    shards = [run.train_shards for run in counted(submission).runs]
    single = [fact for fact in shards if isinstance(fact, Located) and fact.value == 1]
    if not single:
        message = f"{told}; whether a run trained on it, no log tells."
        return Outcome(Verdict.WARN, message, locations=places(*commands))
    message = f"{told}, and the run at {single[0].location} had one training shard."
    return Outcome(Verdict.FAIL, message, locations=places(*commands, *single))


def _gradients(submission: Submission) -> list[Location]:
    return [training.places[-1] for training in submission.legality.trainings]


@rule("PG605", "calibrated-on-validation-tokens", family=FAMILY, status=Status.SETTLED, authority="#728; #1019")
def calibrated_on_validation_tokens(submission: Submission) -> Outcome | None:
    """The quantizer is calibrated on validation tokens.

    What it checks:
        Calls of functions that calibrate by their name (GPTQ, Hessians, AWQ), and the split of the data that they
        get. It fails when that is the validation split alone and the function hands it to the model. And hooks that
        gather statistics while the model reads validation tokens alone, in the same function that then changes
        weights by them or hands them to a quantizer.

    Why it matters:
        Calibration shapes the weights before the tokens are scored (#728). Data of the training split, read within
        the training time, and text that the model writes itself (#1019) are allowed.

    Evidence:
        Where the files are named, the call, and where the model gets them.

    How to fix:
        Calibrate on training tokens within the training time, or on the model's own samples.
    """
    legality = submission.legality
    if isinstance(legality.script, Missing):
        return undecided("What the quantizer sees cannot be told", legality.script.reason, legality.script)
    well = "No calibration on validation tokens was found in code that runs."
    return unread_code(_passages(legality.calibrations, well, _calibrated), submission)


def _rescored(each: Passage) -> str:
    first, second = each.steps
    return (
        f"`{each.what}` is filled from the validation tokens at {first.location} and scores them at {second.location}"
    )


def _calibrated(each: Passage) -> str:
    return f"`{each.what}` gets validation tokens at {each.steps[1].location}"


def _passages(found: Sequence[Passage], well: str, clause: _Clause) -> Outcome:
    """Fail what is proved and runs; undecided what is found beyond that."""
    proved = [each for each in found if each.proved and each.runs == "live" and each.silent is None]
    if proved:
        first = proved[0]
        switch = f" It runs because {first.settings[0].value}." if first.settings else ""
        where = tuple(step.location for step in reversed(first.steps))
        return Outcome(Verdict.FAIL, f"{clause(first)}.{switch}", {"passage_count": len(proved)}, where)
    if found:
        open_ones = [f"{clause(each)} ({_why(each)})" for each in found]
        where = tuple(dict.fromkeys(each.steps[-1].location for each in found))
        return Outcome(Verdict.UNDECIDED, f"{listed(open_ones)}; {PROBE}.", {"passage_count": len(found)}, where)
    return Outcome(Verdict.PASS, well)


def _why(each: Passage) -> str:
    if each.runs != "live":
        return f"it depends on {listed(each.unclear)}" if each.unclear else "whether it runs is unclear"
    if each.silent is not None:
        return silence(each.silent)
    return "what it does with them cannot be read"


@rule("PG610", "reaches-outside", family=FAMILY, status=Status.SETTLED, authority="README, Submission Process; #1017")
def reaches_outside(submission: Submission) -> Outcome | None:
    """The program reaches the network, other programs, or runs code that it makes.

    What it checks:
        Calls of network libraries, of other programs and of code made at run time (`exec`, `eval`), in the training
        script and in the helpers that it imports, unless the configuration shows that they never run. Questions
        about the machine for the log (`nvidia-smi`, `git status`) are left out; programs that fetch (`git clone`,
        `pip install`, `wget`) count as network. A compiler that is started by its name is named and passes: it
        fetches nothing. It fails where the network is reached in the evaluation for certain: the printed score is of
        what is fetched after training, or the function that computes it fetches, under no condition of its own.

    Why it matters:
        "No external downloads, training dataset access, or network calls are allowed during evaluation." A call
        before evaluation is in order: hence a warning where the code does not tell when it is made.

    Evidence:
        The line of each call.

    How to fix:
        Ship what is needed, within the cap, and leave the call out.
    """
    legality = submission.legality
    if isinstance(legality.script, Missing):
        return undecided("What the program reaches cannot be told", legality.script.reason, legality.script)
    fetched = next((each for each in legality.fetches if each.runs == "live" and each.silent is None), None)
    if fetched is not None:
        message = f"`{fetched.what}` at {fetched.steps[0].location} reaches the network in the evaluation"
        where = tuple(step.location for step in fetched.steps)
        return Outcome(Verdict.FAIL, f"{message}, for the score at {where[-1]}.", locations=where)
    compilers = [contact for contact in legality.contacts if contact.value.startswith("compiler")]
    others = [contact for contact in legality.contacts if contact not in compilers]
    told = [f"{contact.value.removeprefix('compiler: ')} at {contact.location}" for contact in compilers]
    notes = (f"It compiles code of its own: {listed(told)}.",) if compilers else ()
    if not others:
        message = "The program reaches neither the network nor other programs, and runs no code that it makes."
        if compilers:
            message = "The program reaches neither the network nor programs other than a compiler."
        return Outcome(Verdict.PASS, message, locations=places(legality.script, *compilers), notes=notes)
    message = f"The program reaches outside itself in {many(len(others), 'place')}: {_named(others)}."
    return Outcome(Verdict.WARN, message, {"contact_count": len(others)}, places(*others), notes)


def _named(contacts: Sequence[Located[str]]) -> str:
    return listed([f"{contact.value} at {contact.location}" for contact in contacts])


RULES = (scored_twice, trained_on_validation_split, calibrated_on_validation_tokens, reaches_outside)
