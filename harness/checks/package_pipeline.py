"""PG0xx: does the training script show all parts of the work, and train all of its model?"""

from __future__ import annotations

from harness.checks.common import listed, many, places, undecided
from harness.checks.package import FAMILY, README_RULE
from harness.facts.submission import Submission
from harness.model import Located, Outcome, Status, Verdict, rule


@rule("PG015", "script-incomplete", family=FAMILY, status=Status.POLICY, authority=f"{README_RULE}; #2013")
def script_incomplete(submission: Submission) -> Outcome | None:
    """The training script lacks a part of the work.

    What it checks:
        The training script, together with the modules of the folder that it imports, shows an optimizer step,
        serialization or compression of the model, an evaluation on validation data and a printed metric. The
        patterns are wide: one word is enough. A script that uses no library that trains models is not asked.

    Why it matters:
        The README asks for "a train log, automatically produced by your script", and a score that is measured on the
        artifact. A script without an evaluation can have produced neither. A part may be hidden in code that is made
        at run time: hence a warning.

    Evidence:
        The first place of each part that is there; the training script for those that are not.

    How to fix:
        Ship the script that made the logs, whole.
    """
    facts, entry = submission.pipeline, submission.package.entry
    if facts.unread is not None:
        return undecided("Whether the script is complete cannot be told", facts.unread.reason, facts.unread)
    if isinstance(entry, Located) and entry.value.missing_modules and facts.missing:
        absent = [module.value for module in entry.value.missing_modules]
        reason = f"it imports {listed(absent)}, which the folder does not hold"
        return undecided("Whether the script is complete cannot be told", reason, *entry.value.missing_modules)
    if not facts.trains:
        message = "The training script uses no library that trains models: its parts are not asked for."
        return Outcome(Verdict.PASS, message, locations=places(entry))
    if facts.missing:
        message = f"Nothing in the training script shows {listed(facts.missing)}."
        return Outcome(Verdict.WARN, message, {"missing_count": len(facts.missing)}, places(entry))
    return Outcome(
        Verdict.PASS,
        f"The training script shows {listed([s.value for s in facts.steps])}.",
        locations=places(*facts.steps),
    )


@rule("PG016", "parameter-untrained", family=FAMILY, status=Status.POLICY, authority="README, Submission Process")
def parameter_untrained(submission: Submission) -> Outcome | None:
    """A parameter of the model is in no optimizer group.

    What it checks:
        Where the optimizer groups are made from the parameters of the blocks, sorted by two dimensions and by fewer,
        and from parameters named one by one: tensors of three dimensions or more in a block (the weights of
        convolutions), and parameters of the model itself that no code outside of its class names.

    Why it matters:
        Such a parameter keeps its initial value. The run is valid, but the model is not the one that the README
        describes: hence a warning.

    Evidence:
        The line that makes the parameter, and the line that makes the groups.

    How to fix:
        Add the parameter to a group, or freeze it and say so.
    """
    facts = submission.pipeline
    if facts.untrained:
        clauses = [f"{each.value.name} {each.value.reason}" for each in facts.untrained]
        found = [place for each in facts.untrained for place in (each, each.value.groups)]
        message = f"No optimizer group takes {many(len(clauses), 'parameter')}: {listed(clauses)}."
        return Outcome(Verdict.WARN, message, {"untrained_count": len(clauses)}, places(*found))
    if facts.unread is not None:
        return undecided("Whether every parameter is trained cannot be told", facts.unread.reason, facts.unread)
    message = "No parameter was seen that the optimizer groups leave out."
    return Outcome(Verdict.PASS, message, locations=places(submission.package.entry))


RULES = (script_incomplete, parameter_untrained)
