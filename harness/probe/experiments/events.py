"""What experiments read out of events, which a script may have damaged, and write as these have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pairs(value: object) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers from 0 that an event tells; what is no such pair is left out."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    found = [pair for pair in value if isinstance(pair, Sequence) and len(pair) == 2]
    whole = [(pair[0], pair[1]) for pair in found if all(type(end) is int and end >= 0 for end in pair)]
    return tuple(whole)


def ranges(places: NDArray[np.int64]) -> list[list[int]]:
    """Places in order, each once, as half-open ranges."""
    if not places.size:
        return []
    pieces = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return [[int(piece[0]), int(piece[-1]) + 1] for piece in pieces]
