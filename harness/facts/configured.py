"""The value of a setting in the logs of a run, as an environment variable would hold it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from harness.facts.runs import Run

_SCALAR = re.compile(r"[-+]?\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?|True|False|[A-Za-z][\w.+-]{0,40}")
SWITCHES: Final = {"True": "1", "False": "0"}


def agreed(runs: Iterable[Run], key: str) -> str | None:
    """The one value that every log which prints a setting gives it; None where they differ or it is no plain word."""
    values = {run.config[key].value for run in runs if key in run.config}
    if len(values) != 1:
        return None
    value = values.pop().strip().strip("'\"")
    return SWITCHES.get(value, value) if _SCALAR.fullmatch(value) else None


def fits(value: str, default: str | None) -> bool:
    """Whether a script with this default can read a value: logs print words for some numbers, `compile:disabled`.

    Example:
        >>> fits("disabled", "1"), fits("0", "1"), fits("cosine", "linear")
        (False, True, True)
    """
    return number(default) is None or number(value) is not None


def number(text: str | None) -> float | None:
    """The number that a text is, or None."""
    try:
        return None if text is None else float(text.replace("_", ""))
    except ValueError:
        return None
