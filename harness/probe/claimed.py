"""The environment of the claimed run: what its logs show, list or not, else what the README's command sets.

A default in the source is not the value of the run: with test-time training off, a probe would prove nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.analysis.switches import HALF
from harness.checks.common import counted
from harness.facts.configured import agreed, fits
from harness.facts.submission import Submission

# Places of the machine that made the log, and names of one run.
_PLACES = re.compile(
    r"(?:^|_)(?:PATHS?|DIRS?|DIRECTORY|FILES?|FOLDER|RUN_ID|HOST|HOSTNAME|ADDR|DEVICES?|PORT|WORLD_SIZE)(?:$|_)"
    r"|(?:DIR|PATH|SEEDS?)$|^(?:LOCAL_|NODE_|GROUP_)?RANK$|WALLCLOCK|NPROC"
)

_WORD = re.compile(r"[\w.+-]{1,40}(?:,[\w.+-]{1,40}){0,40}")


def environment(submission: Submission, also: Iterable[str] = ()) -> dict[str, str]:
    """Settings of the claimed run by the variables that the shipped scripts read.

    Args:
        submission: with its logs and commands.
        also: variables that a script may read where reading its text does not show it.

    Returns:
        name and value of each variable that a log or a command of the README gives one value, in order of the name.
    """
    defaults: dict[str, str | None] = {}
    for name, default in (key.value for script in submission.package.scripts for key in script.environment):
        # A look at whether it is set at all gives no default.
        defaults[name] = default if default is not None else defaults.get(name)
    defaults |= dict.fromkeys(set(also) - set(defaults))
    stated = {setting.value.key: f"{setting.value.value:.12g}" for setting in submission.settings}
    runs = counted(submission).runs
    # Of a claim that was taken back, with no log, a command is one for a run that nobody reports.
    stated = stated if submission.runs or submission.commanded else {}
    found: dict[str, str] = {}
    for name, default in sorted(defaults.items()):
        shown = agreed(runs, name.lower()) or submission.switched.get(name) or submission.guessed.get(name)
        value = shown or _plain(submission.commanded.get(name)) or stated.get(name.lower())
        left = _PLACES.search(name) or HALF.search(name)
        if value is not None and not left and fits(value, default):
            found[name] = value
    return found


def _plain(value: str | None) -> str | None:
    """A value that is a word, a number or a list of them, without quotes; None for anything else."""
    bare = (value or "").strip("'\"")
    return bare if _WORD.fullmatch(bare) else None
