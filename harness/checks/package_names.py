"""PG0xx: are the names, attributes and calls of the training script sound?"""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks.common import listed, places, undecided
from harness.checks.package import FAMILY, README_RULE
from harness.facts.names import CodeError, NamesFacts, Reach
from harness.facts.submission import Submission
from harness.model import Located, Location, Outcome, Status, Verdict, rule

NAMED_ERRORS = 6


@rule("PG011", "name-undefined", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #2013")
def name_undefined(submission: Submission) -> Outcome | None:
    """The training script uses a name that nothing defines.

    What it checks:
        Every name that the training script, or a module of the folder that it imports, reads is bound there, by
        Python, or by the wrapper that unpacks it. A name on the way of every run fails; one behind a condition warns;
        one in code that nothing calls is noted. Where a star import or `globals()` can bind names unseen, an unknown
        name is undecided.

    Why it matters:
        "This must successfully compile and run within the records folder. Broken scripts will not be accepted."
        A name that is not defined ends the run with a NameError.

    Evidence:
        The line that reads the name.

    How to fix:
        Define or import the name, and run the script as shipped once.
    """
    names = submission.names
    if names.undefined and names.unseen is not None:
        subjects = [error.value.subject for error in names.undefined]
        return undecided(f"Whether {listed(subjects)} is defined cannot be told", names.unseen.value, *names.undefined)
    return _judged(names, names.undefined, "Every name is defined")


@rule("PG012", "local-unbound", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #2013")
def local_unbound(submission: Submission) -> Outcome | None:
    """A variable is read before anything is assigned to it.

    What it checks:
        No function, and no statement of the module, reads a variable of its own at a place that comes before every
        assignment to it, or after a `del` of it with no assignment between. Only places are reported that raise
        whenever they are reached; on the way of every run they fail, behind a condition they warn.

    Why it matters:
        "This must successfully compile and run within the records folder." An UnboundLocalError ends the run.

    Evidence:
        The line that reads the variable.

    How to fix:
        Assign the variable first, or declare it `global` or `nonlocal`.
    """
    return _judged(submission.names, submission.names.unbound, "No variable is read before its first assignment")


@rule("PG013", "attribute-never-set", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #2013")
def attribute_never_set(submission: Submission) -> Outcome | None:
    """A class reads an attribute of its own that nothing sets.

    What it checks:
        Every attribute that a method reads on `self` is set in the class, a base or a subclass, or by any other code
        of the folder. Classes with a base that is not known, with `__getattr__`, with a decorator or with
        computed attribute names are not judged.

    Why it matters:
        "This must successfully compile and run within the records folder." An AttributeError ends the run.

    Evidence:
        The line that reads the attribute.

    How to fix:
        Set the attribute in `__init__`, or correct its name.
    """
    message = "Every attribute that a class reads on itself is set"
    return _judged(submission.names, submission.names.attributes, message)


@rule("PG014", "arguments-do-not-fit", family=FAMILY, status=Status.SETTLED, authority=f"{README_RULE}; #2013")
def arguments_do_not_fit(submission: Submission) -> Outcome | None:
    """A function of the script's own is called with arguments that it does not take.

    What it checks:
        Calls by name of functions and classes that the script defines once, without decorators: the number of
        arguments, the names of keywords, and values for all parameters without a default.

    Why it matters:
        "This must successfully compile and run within the records folder." A TypeError ends the run.

    Evidence:
        The line of the call, and that of the definition.

    How to fix:
        Bring the call and the definition together.
    """
    return _judged(submission.names, submission.names.calls, "The arguments of all calls of own functions fit")


def _judged(names: NamesFacts, errors: Sequence[Located[CodeError]], good: str) -> Outcome:
    """Fail for what every run meets, warn for what a run may meet, note what none does."""
    certain = [error for error in errors if error.value.reach is Reach.CERTAIN]
    possible = [error for error in errors if error.value.reach is Reach.POSSIBLE]
    notes = tuple(
        f"In code that nothing calls, {_clause(error)}." for error in errors if error.value.reach is Reach.DEAD
    )
    if certain:
        message = f"Every run meets an error: {_clauses([*certain, *possible])}."
        return Outcome(Verdict.FAIL, message, _counts(errors), places(*certain, *possible), notes)
    if possible:
        message = f"A run meets an error if it comes there: {_clauses(possible)}."
        return Outcome(Verdict.WARN, message, _counts(errors), places(*possible), notes)
    if names.unread is not None:
        return undecided("Whether the code holds up cannot be told", names.unread.reason, names.unread)
    scripts = [Location(path) for path in names.scripts]
    return Outcome(
        Verdict.PASS, f"{good} ({listed(names.scripts)}).", locations=places(*scripts), notes=notes[:NAMED_ERRORS]
    )


def _counts(errors: Sequence[Located[CodeError]]) -> dict[str, int]:
    return {f"{reach}_count": sum(error.value.reach is reach for error in errors) for reach in Reach}


def _clauses(errors: Sequence[Located[CodeError]]) -> str:
    return listed([_clause(error) for error in errors], NAMED_ERRORS)


def _clause(error: Located[CodeError]) -> str:
    return f"{error.value.subject} {error.value.problem} ({error.location})"


RULES = (name_undefined, local_unbound, attribute_never_set, arguments_do_not_fit)
