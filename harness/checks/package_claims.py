"""PG0xx: does the README describe the runs that the logs show?"""

from __future__ import annotations

from harness.checks.common import listed, many, places, undecided
from harness.checks.package import FAMILY, README_RULE
from harness.facts.runs import Run
from harness.facts.settings import Setting
from harness.facts.submission import Submission
from harness.model import Located, Missing, Outcome, Status, Verdict, rule


@rule("PG017", "setting-contradicted", family=FAMILY, status=Status.POLICY, authority=README_RULE)
def setting_contradicted(submission: Submission) -> Outcome | None:
    """The README states a setting that every log contradicts.

    What it checks:
        Settings that the README gives one value only, in a command (`NUM_LAYERS=11`) or in a row of a table with two
        columns (`| Layers | 11 |`), against the hyperparameters that the logs print. It warns when all logs that print
        the setting agree on another value; where logs differ, or one of them agrees with the README, it is silent.

    Why it matters:
        The README asks for a text "that explains the submission in reasonable detail"; one that describes another run
        cannot be reproduced. It may be a slip of the pen: hence a warning.

    Evidence:
        The line of the README and the line of a log.

    How to fix:
        Correct the README, or ship the logs of the run that it describes.
    """
    if isinstance(submission.package.readme, Missing):
        return undecided("Whether the README fits the logs cannot be told", submission.package.readme.reason)
    if not submission.runs:
        return undecided("Whether the README fits the logs cannot be told", "no training log was read")
    compared, wrong = 0, []
    for setting in submission.settings:
        logged = [found for run in submission.runs if (found := _logged(run, setting.value.key)) is not None]
        compared += bool(logged)
        if logged and len({each.value for each in logged}) == 1 and logged[0].value != setting.value.value:
            wrong.append((setting, logged[0]))
    if wrong:
        message = f"The README states settings that no log shows: {listed([_clause(*pair) for pair in wrong])}."
        proof = [place for setting, log in wrong for place in (setting.location, log.location)]
        return Outcome(Verdict.WARN, message, {"contradicted_count": len(wrong)}, places(*proof))
    message = f"No setting of the README is contradicted by the logs ({many(compared, 'setting')} compared)."
    return Outcome(Verdict.PASS, message, {"compared_count": compared}, places(submission.package.readme))


def _logged(run: Run, key: str) -> Located[float] | None:
    """The number that a run logs for a setting, or None."""
    entry = run.config.get(key)
    if entry is None:
        return None
    try:
        return Located(float(entry.value), entry.location)
    except ValueError:
        return None


def _clause(setting: Located[Setting], logged: Located[float]) -> str:
    stated = setting.value
    return f"{stated.key} {stated.value:g} ({setting.location}), logged {logged.value:g} ({logged.location})"


RULES = (setting_contradicted,)
