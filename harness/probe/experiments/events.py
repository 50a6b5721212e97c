"""What experiments read out of events, which a script may have damaged."""

from __future__ import annotations

from collections.abc import Sequence


def pairs(value: object) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers from 0 that an event tells; what is no such pair is left out."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    found = [pair for pair in value if isinstance(pair, Sequence) and len(pair) == 2]
    whole = [(pair[0], pair[1]) for pair in found if all(type(end) is int and end >= 0 for end in pair)]
    return tuple(whole)
