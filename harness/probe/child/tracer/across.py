"""Learning that crosses from process to process: gradients that are added up, weights that are copied.

Each process follows its own weights. What a collective operation gives it has learned whatever its parts had on any
process; the numbers of computations go along, so that what happens after the operation has a higher one everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..collective import State, most
from .follow import Follower
from .weights import Learned, Record


class Across:
    """Tells the other processes what tensors have learned, and hears it of them.

    Args:
        follower: of this process.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower, self._ledger, self._updates = follower, follower.ledger, follower.updates

    def tell(self, tensors: Sequence[Any]) -> torch.Tensor:
        """What some tensors have learned, and the number of the last computation."""
        # What is looked at here is not used by the script.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            return self._told(self._learned(tensors))

    def hear(self, tensors: Sequence[Any], told: torch.Tensor) -> None:
        """Some tensors hold what the processes had."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            learned = self._heard(told)
            self._ledger.weights.writes += 1
            for tensor in tensors:
                self._holds(tensor, learned)

    def synchronized(self) -> None:
        """After a backward pass: were gradients added up over all processes?"""
        if State.synchronizing:
            State.synchronizing = False
            learned = self._heard(most(self._told(self._ledger.pending)))
            if learned.any():
                self._updates.received(learned)

    def _learned(self, tensors: Sequence[Any]) -> Learned:
        found = self._ledger.weights.nothing
        records = [self._record(tensor) for tensor in tensors]
        if any(records):
            self._updates.settle()
        for tensor, record in zip(tensors, records, strict=True):
            mine = record.learned if record is not None else self._ledger.gradients.get(tensor)
            found = found if mine is None else self._ledger.weights.union(found, mine)
        return found

    def _holds(self, tensor: Any, learned: Learned) -> None:
        record = self._record(tensor)
        if record is not None:
            self._ledger.weights.receive(record, learned)
        elif learned.any() and tensor.is_floating_point() and tensor.numel() > 1:
            # A single number is a sum of losses or a size, no gradient that teaches anything.
            self._ledger.gradients.set(tensor, learned)
            self._updates.received(learned)

    def _told(self, learned: Learned) -> torch.Tensor:
        return torch.cat([torch.from_numpy(learned).to(torch.int64), torch.tensor([self._ledger.at])])

    def _heard(self, told: torch.Tensor) -> Learned:
        self._ledger.at = max(self._ledger.at, int(told[-1]))
        learned: Learned = told[:-1].numpy() > 0
        return learned

    def _record(self, tensor: Any) -> Record | None:
        """The weights that a tensor is, or is another name of."""
        return self._ledger.weights.record(self._follower.original(tensor))
