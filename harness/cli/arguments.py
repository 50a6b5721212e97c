"""Types of arguments: what argparse refuses before a command begins."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def place(text: str) -> Path:
    """A path; nothing, which an unset variable of a shell leaves, would be the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, not nothing")
    return Path(text)


def positive(text: str) -> int:
    """A whole number above zero."""
    value = _whole(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above zero")
    return value


def duration(text: str) -> float:
    """A number of seconds above zero."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above zero")
    return value


def limit(text: str) -> float:
    """A number of seconds, zero or above."""
    value = _number(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, zero or above")
    return value


def _whole(text: str) -> int | None:
    # More digits than this are no count of anything here, and beyond some thousands Python refuses them.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
