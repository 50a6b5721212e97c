"""PG0xx: is what the folder says of its track, its commands and its settings true of the folder?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.checks.common import counted, listed, many, places, undecided
from harness.checks.package import FAMILY, README_RULE
from harness.facts.statements import Launch
from harness.facts.submission import Submission
from harness.model import Located, Location, Missing, Outcome, Status, Value, Verdict, rule

# Parameter counts are stated of one part of a model or another; what differs by less is a matter of counting.
SAME_COUNT = 0.02
_PLACEHOLDER = re.compile(r"\.\.\.|YOUR|your|<|>|\bpath/to\b|XX")
_RECORD_TRACK = re.compile(r"(?:^|/)track_10min[^/]*(?:/|$)")


@rule("PG018", "setting-unread", family=FAMILY, status=Status.POLICY, authority=README_RULE)
def setting_unread(submission: Submission) -> Outcome | None:
    """The README or submission.json states settings that no shipped script reads.

    What it checks:
        Environment variables that the README's command sets for a shipped script: some script of the folder names
        each of them, in either case. Settings of submission.json that a class of the script sets under the same
        name: the scripts name them a second time, where they use them. Variables of launchers and libraries (CUDA_*,
        NCCL_*, OMP_*) are left out.

    Why it matters:
        A setting that nothing reads changes nothing: the run is another than the README describes, or the script is
        another than the one that made the logs. It may be a leftover: hence a warning.

    Evidence:
        The line of the command or the JSON pointer, and the line of the script.

    How to fix:
        Ship the script that reads the setting, or leave the setting out of the text.
    """
    statements = submission.statements
    unread = [(launch, name) for launch in statements.launches for name in launch.value.unread]
    compared = sum(launch.value.shipped for launch in statements.launches)
    if not unread and not statements.idle:
        closed = [script for script in submission.package.scripts if script.problem]
        if closed:
            reason = f"{closed[0].path} could not be read whole ({closed[0].problem})"
            return undecided(
                "Whether scripts read every stated setting cannot be told", reason, Location(closed[0].path)
            )
        if not compared:
            return None
        return Outcome(
            Verdict.PASS,
            f"The scripts name every variable that the README's commands set ({many(compared, 'command')}).",
        )
    by_name: dict[str, Located[Launch]] = {}
    for launch, name in unread:
        by_name.setdefault(name, launch)
    clauses = [f"{name} ({launch.location})" for name, launch in by_name.items()]
    clauses += [
        f"{stated.value} ({stated.location}), set at {field.location} only" for stated, field in statements.idle
    ]
    values: dict[str, Value] = {"unread_count": len(clauses)}
    where = places(*by_name.values(), *(place for pair in statements.idle for place in pair))
    return Outcome(Verdict.WARN, f"No shipped script reads: {listed(clauses)}.", values, where)


@rule("PG019", "command-elsewhere", family=FAMILY, status=Status.POLICY, authority="README, Submission Process; #496")
def command_elsewhere(submission: Submission) -> Outcome | None:
    """The README's command runs a script of another folder, or one that the folder lacks.

    What it checks:
        Commands of the README that start a script by its path. It warns when none of them starts a script of this
        folder: every path under `records/` names another folder, or every script that they name is absent.

    Why it matters:
        "A train log and a script that compiles and runs from within the records folder" (README). Folders are
        renamed before they are submitted, and the command keeps the old name: hence a warning.

    Evidence:
        The command's line.

    How to fix:
        Give the command as it runs in the submitted folder.
    """
    if isinstance(submission.package.readme, Missing):
        return undecided("What the README's command runs cannot be told", submission.package.readme.reason)
    if not submission.package.scripts:
        return None
    own = submission.folder.replace("\\", "/").rstrip("/").rpartition("/")[2] or submission.name
    launches = [
        each for each in submission.statements.launches if not _PLACEHOLDER.search(each.value.script) and _trains(each)
    ]
    judged = [(each, _where(each.value, {own, submission.name})) for each in launches]
    elsewhere = [(each, folder) for each, folder in judged if folder]
    if not judged:
        return None
    if len(elsewhere) < len(judged):
        here = next(each for each, folder in judged if not folder)
        return Outcome(Verdict.PASS, f"The README's command runs {here.value.script}.", locations=places(here))
    clauses = [f"{each.value.script} ({folder})" for each, folder in elsewhere]
    message = f"No command of the README runs a script of this folder: {listed(list(dict.fromkeys(clauses)))}."
    return Outcome(Verdict.WARN, message, {"command_count": len(judged)}, places(*(each for each, _ in elsewhere)))


def _trains(launch: Located[Launch]) -> bool:
    """Whether a command may be the one that makes the submission: not one that prepares data."""
    folder, _, name = launch.value.script.rpartition("/")
    return launch.value.shipped or "train" in name or folder.startswith("records/")


def _where(launch: Launch, own: set[str]) -> str:
    """What is wrong with a script's place, in words; empty when it may be this folder's."""
    parts = launch.script.removeprefix("./").split("/")
    if "records" in parts[:-2]:
        return "" if parts[-2] in own else "another folder"
    return "" if launch.shipped else "which is not shipped"


@rule("PG024", "track-differs", family=FAMILY, status=Status.POLICY, authority="README, Non-record Submissions")
def track_differs(submission: Submission) -> Outcome | None:
    """The folder lies on the record track and calls itself no record.

    What it checks:
        A folder under `records/track_10min_16mb/` whose submission.json (`track`, `is_record`), README's title or a
        line right below that says that it is a non-record submission.

    Why it matters:
        Records are judged by time, seeds and significance, non-record submissions are not: a reviewer has to know
        which rules apply. The folder may be misplaced: hence a warning.

    Evidence:
        The place that says so, and the folder's path.

    How to fix:
        Move the folder to `records/track_non_record_16mb/`, or correct the statement.
    """
    if not _RECORD_TRACK.search(submission.folder.replace("\\", "/")):
        return None
    stated = submission.statements.non_record
    if isinstance(submission.package.readme, Missing) and isinstance(submission.package.manifest, Missing):
        return undecided("What the folder calls itself cannot be told", submission.package.manifest.reason)
    if not stated:
        return Outcome(Verdict.PASS, "Nothing in the folder says that it is outside the record track.")
    clauses = [f"{each.value} ({each.location})" for each in stated]
    message = f"The folder lies on the 10-minute record track and calls itself a non-record: {listed(clauses)}."
    return Outcome(Verdict.WARN, message, {"statement_count": len(stated)}, places(*stated))


@rule("PG025", "parameter-count-differs", family=FAMILY, status=Status.POLICY, authority=README_RULE)
def parameter_count_differs(submission: Submission) -> Outcome | None:
    """The number of parameters is stated otherwise than the logs print it.

    What it checks:
        The parameter counts of submission.json and of a row of a table in the README against what the logs of the
        claimed runs print. A difference of more than two percent and of the printed digits warns.

    Why it matters:
        A count tells which model a log belongs to. Counts with and without embeddings differ: hence a warning.

    Evidence:
        Both places.

    How to fix:
        Copy the number from the log, and say what it counts.
    """
    stated = submission.statements.parameters
    logged = [run.parameters for run in counted(submission).runs if isinstance(run.parameters, Located)]
    if not stated:
        return None
    if not logged:
        return undecided("The stated parameters cannot be compared", "no log prints a number of parameters", *stated)
    numbers = [fact.value for fact in logged]
    wrong = [each for each in stated if not any(_same(each.value.value, each.value.unit, number) for number in numbers)]
    values: dict[str, Value] = {"logged_parameters": numbers[0], "stated_parameters": round(stated[0].value.value)}
    where = places(*(wrong or stated), *logged)
    if wrong:
        clauses = [f"{each.value.value:,.0f} ({each.location})" for each in wrong]
        message = f"Stated parameters: {listed(clauses)}; the logs print {_numbers(numbers)}."
        return Outcome(Verdict.WARN, message, values, where)
    return Outcome(Verdict.PASS, f"The stated parameters are those of the logs, {_numbers(numbers)}.", values, where)


def _same(stated: float, unit: float, logged: int) -> bool:
    return abs(stated - logged) <= max(unit, SAME_COUNT * logged)


def _numbers(numbers: Sequence[int]) -> str:
    return listed([f"{number:,}" for number in dict.fromkeys(numbers)])


RULES = (setting_unread, command_elsewhere, track_differs, parameter_count_differs)
