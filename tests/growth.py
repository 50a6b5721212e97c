"""How the cost of a call grows with its input: a busy machine makes one measurement slow, an algorithm all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

# Work that doubles with the length is 4 times as slow at 4 times the length, square work 16 times.
RATIO_LIMIT = 9.0
LEAST_ROUNDS, ROUNDS = 3, 12


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def growth(small: Callable[[], object], large: Callable[[], object], *, floor: float = 0.001) -> float:
    """The large call's cost in small ones, by the cheapest of each so far: a few rounds, more while it is not linear.

    A small call counts as `floor` processor seconds at least.
    """
    least_small = least_large = ratio = float("inf")
    for done in range(1, ROUNDS + 1):
        least_large = min(least_large, seconds(large))
        least_small = min(least_small, seconds(small))
        ratio = least_large / max(least_small, floor)
        if done >= LEAST_ROUNDS and ratio < RATIO_LIMIT:
            break
    return ratio
