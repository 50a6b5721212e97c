"""One process among several: which share of the work is its own, and how sums are made common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Worker:
    """Place of one process.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are; above 1 the default process group must be initialized.
        device: where it computes.
        autocast: dtype of matrix products under autocast; None computes in the weights' own dtype.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    autocast: torch.dtype | None = None

    def share(self, items: int) -> range:
        """The contiguous part of `range(items)` that is this process's own; the parts cover it exactly once."""
        return range(items * self.rank // self.world_size, items * (self.rank + 1) // self.world_size)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place; every process must call it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def precision(self) -> torch.autocast:
        """Context in which the model runs."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None)
