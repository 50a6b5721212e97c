"""The configuration that a submission's own logs show: what its numbers were made with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from harness.facts.configured import SWITCHES, agreed, fits, number
from harness.facts.submission import Submission
from harness.model import Located
from harness.reproduce.environment import BY_FLAG, OURS

WALLCLOCK_KEY: Final = "max_wallclock_seconds"
# Places of the machine that made the log, and names of one run.
_PLACES = re.compile(r"PATH|DIR|FILE|RUN_ID|HOST|RANK|DEVICE|WORLD|PORT|ADDR")


def seeds(submission: Submission) -> tuple[int, ...]:
    """The seeds that submission.json, the README's table or the logs name, in that order of preference."""
    for rows in (submission.claims.seeds, submission.readme.seeds, submission.runs):
        found = [row.seed.value for row in rows if isinstance(row.seed, Located) and row.seed.value >= 0]
        if found:
            return tuple(dict.fromkeys(found))
    return ()


def wallclock_seconds(submission: Submission, environment: Mapping[str, str]) -> float | None:
    """The training limit of the claimed runs: declared, else logged; None where neither tells."""
    stated = [environment.get(WALLCLOCK_KEY.upper())]
    stated += [run.config[WALLCLOCK_KEY].value for run in submission.runs if WALLCLOCK_KEY in run.config]
    return next((value for value in map(number, stated) if value is not None), None)


def processes(submission: Submission) -> int | None:
    """The number of processes of the claimed runs, where the logs agree on one."""
    found = {run.world_size.value for run in submission.runs if isinstance(run.world_size, Located)}
    return found.pop() if len(found) == 1 else None


def environment(submission: Submission) -> dict[str, str]:
    """Settings under which all logs agree, that differ from the script's defaults and that the script reads.

    A default in the source is not the value of the run: a log that states the hyperparameters is believed instead, and
    so is one that holds what only the other side of a switch prints.
    """
    entry = submission.package.entry
    if not isinstance(entry, Located) or not submission.runs:
        return {}
    found: dict[str, str] = {}
    for name, default in (key.value for key in entry.value.environment):
        value = agreed(submission.runs, name.lower()) or submission.switched.get(name)
        if value is None or name in BY_FLAG or name in OURS or _PLACES.search(name):
            continue
        if default is not None and not _same(value, default) and fits(value, default):
            found[name] = value
    return found


def _same(value: str, default: str) -> bool:
    numbers = (number(value), number(SWITCHES.get(default, default)))
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    return value == default
