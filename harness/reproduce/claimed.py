"""The configuration that a submission's own logs show: what its numbers were made with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located
from harness.reproduce.environment import BY_FLAG, OURS

WALLCLOCK_KEY: Final = "max_wallclock_seconds"
# Places of the machine that made the log, and names of one run.
_PLACES = re.compile(r"PATH|DIR|FILE|RUN_ID|HOST|RANK|DEVICE|WORLD|PORT|ADDR")
_SCALAR = re.compile(r"[-+]?\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?|True|False|[A-Za-z][\w.+-]{0,40}")
_SWITCHES: Final = {"True": "1", "False": "0"}


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
    return next((value for value in map(_number, stated) if value is not None), None)


def processes(submission: Submission) -> int | None:
    """The number of processes of the claimed runs, where the logs agree on one."""
    found = {run.world_size.value for run in submission.runs if isinstance(run.world_size, Located)}
    return found.pop() if len(found) == 1 else None


def environment(submission: Submission) -> dict[str, str]:
    """Settings under which all logs agree, that differ from the script's defaults and that the script reads.

    A default in the source is not the value of the run: a log that states the hyperparameters is believed instead.
    """
    entry = submission.package.entry
    if not isinstance(entry, Located) or not submission.runs:
        return {}
    found: dict[str, str] = {}
    for name, default in (key.value for key in entry.value.environment):
        value = _agreed(submission.runs, name.lower())
        if value is None or name in BY_FLAG or name in OURS or _PLACES.search(name):
            continue
        if default is not None and not _same(value, default):
            found[name] = value
    return found


def _agreed(runs: tuple[Run, ...], key: str) -> str | None:
    values = {run.config[key].value for run in runs if key in run.config}
    if len(values) != 1:
        return None
    value = values.pop().strip().strip("'\"")
    return _SWITCHES.get(value, value) if _SCALAR.fullmatch(value) else None


def _same(value: str, default: str) -> bool:
    numbers = (_number(value), _number(_SWITCHES.get(default, default)))
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    return value == default


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace("_", ""))
    except ValueError:
        return None
