"""Which of the passes that were followed is the one that the script reports: its mean is the loss that was printed.

Two distances count, relative to the loss. A pass that has it to the last bit is the one. Up to `CLEAR`, the loss was
rounded when it was printed, or added up in another precision. What is farther away is another score: in a small world
an earlier evaluation, or a mixture of the same model's scores, comes to within 1e-4 of it, while the reported pass of
no script that was run here was farther than 6e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

# Four decimals of a loss of 2.5 nats.
CLEAR: Final = 2e-5
EXACT: Final = 1e-7


def reported(passes: Sequence[Mapping[str, Any]], loss: float) -> list[Mapping[str, Any]]:
    """The passes that may be the reported one.

    Args:
        passes: events with a `mean` in nats per token.
        loss: as printed, in nats per token.
    """
    distances = [(apart(event["mean"], loss), event) for event in passes]
    clear = [event for distance, event in distances if distance <= CLEAR]
    exact = [event for distance, event in distances if distance <= EXACT]
    # In a small world several passes may come to about the same loss: what has it exactly is it.
    return exact or clear


def apart(value: float, loss: float) -> float:
    """How far a value is from a loss, as a share of it."""
    return float(abs(value - loss) / max(abs(loss), 1e-9))
