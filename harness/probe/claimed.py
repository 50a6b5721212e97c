"""The environment of the claimed run: what its logs show, else what the README's command sets.

A default in the source is not the value of the run: with test-time training off, a probe would prove nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from harness.checks.common import counted
from harness.facts.runs import Run
from harness.facts.submission import Submission
from harness.model import Located

# Places of the machine that made the log, and names of one run.
_PLACES = re.compile(r"PATH|DIR|FILE|RUN_ID|HOST|RANK(?!_)|DEVICE|WORLD|PORT(?:$|_)|ADDR|SEED$|WALLCLOCK|NPROC")
_SCALAR = re.compile(r"[-+]?\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?|True|False|[A-Za-z][\w.+-]{0,40}")
_SWITCHES: Final = {"True": "1", "False": "0"}


def environment(submission: Submission) -> dict[str, str]:
    """Settings of the claimed run by the variables that the shipped scripts read.

    Returns:
        name and value of each variable that a log or a command of the README gives one value, in order of the name.
    """
    defaults = dict(key.value for script in submission.package.scripts for key in script.environment)
    stated = {setting.value.key: f"{setting.value.value:.12g}" for setting in submission.settings}
    runs = counted(submission).runs
    found: dict[str, str] = {}
    for name, default in sorted(defaults.items()):
        value = _agreed(runs, name.lower()) or stated.get(name.lower())
        if value is not None and not _PLACES.search(name) and _is_number(value) >= _is_number(default):
            found[name] = value
    return found


def _is_number(text: str | None) -> bool:
    """Whether a script that has this default would read a number; logs print words for some: `disabled`."""
    try:
        float((text or "").replace("_", ""))
    except ValueError:
        return False
    return True


def _agreed(runs: Sequence[Run], key: str) -> str | None:
    """The value that every log of the claimed run prints for a setting, as a variable would hold it."""
    values = {run.config[key].value for run in runs if isinstance(run.config.get(key), Located)}
    if len(values) != 1:
        return None
    value = values.pop().strip().strip("'\"")
    return _SWITCHES.get(value, value) if _SCALAR.fullmatch(value) else None
