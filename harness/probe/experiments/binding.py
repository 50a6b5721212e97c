"""Which of the passes that were followed is the one that the script reports: its mean is the loss that was printed.

Three distances count, relative to the loss. A pass that has it to the last bit is the one. Up to `CLEAR`, the loss was
rounded when it was printed, or added up in another precision. Up to `NEAR` a window may not have been placed; but in a
small world another score, a mixture of the same model, may be as near. There a pass can accuse, since its own scores
came to about the printed loss, and can clear nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

NEAR: Final = 2e-4
CLEAR: Final = 1e-5
EXACT: Final = 1e-7


def reported(passes: Sequence[Mapping[str, Any]], loss: float) -> tuple[list[Mapping[str, Any]], bool]:
    """The passes that may be the reported one, and whether one of them clearly is.

    Args:
        passes: events with a `mean` in nats per token.
        loss: as printed, in nats per token.
    """
    distances = [(apart(event["mean"], loss), event) for event in passes]
    near = [event for distance, event in distances if distance <= NEAR]
    exact = [event for distance, event in distances if distance <= EXACT]
    # In a small world several passes may come to about the same loss: one that has it exactly is it.
    chosen = exact if len(exact) == 1 else near
    return chosen, any(distance <= CLEAR for distance, event in distances if event in chosen)


def apart(value: float, loss: float) -> float:
    """How far a value is from a loss, as a share of it."""
    return float(abs(value - loss) / max(abs(loss), 1e-9))
