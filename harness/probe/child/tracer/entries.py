"""What the ledger keeps: computations of losses, and passes over the text that count them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .positions import Places
from .weights import Learned


@dataclass(slots=True)
class Source:
    """One computation of losses.

    Attributes:
        at: its number among all computations and updates.
        targets: places of what was predicted, in the order of the computation.
        inputs: places of what was read, where it has the same shape; rows by columns.
        grad: whether it can be learned from.
        weights: checksum of the weights that took part.
        participants: these weights.
        learned: what they had learned by then.
        counted: elements that have been counted.
        direct: nats of each target by a softmax over the row that it was looked up in; None: not looked at.
        how: operations that made one loss of several.
        among: for watched places, the numbers of the sources of which the best or the worst was taken; its own too.
    """

    at: int
    targets: Places
    inputs: Places | None
    grad: bool
    weights: str
    participants: tuple[int, ...]
    learned: Learned
    counted: NDArray[np.bool_]
    direct: NDArray[np.float64] | None = None
    how: set[str] = field(default_factory=set)
    among: dict[int, set[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Pass:
    """Scores that one function of the script counts, from the beginning of the text to its end."""

    number: int
    where: str
    grad: bool
    seen: NDArray[np.int32]
    start: int
    first: int
    last: int = 0
    total: float = 0.0
    count: int = 0
    early: int = 0
    unknown: int = 0
    forms: set[str] = field(default_factory=set)
