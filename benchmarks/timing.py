"""Wall and processor seconds of several actions that take turns, so that their ratios come from one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ENDLESS = float("inf")


@dataclass
class Seconds:
    """The least of all rounds; processor seconds are those of all threads."""

    wall: float = ENDLESS
    processor: float = ENDLESS


def measured(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Run every action once in each round, in turn, after one round that is not counted."""
    found = {name: Seconds() for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            wall, processor = time.perf_counter(), time.process_time()
            action()
            if number:
                best = found[name]
                best.wall = min(best.wall, time.perf_counter() - wall)
                best.processor = min(best.processor, time.process_time() - processor)
    return found
