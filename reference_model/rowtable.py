"""An embedding of many rows, of which a step looks up few: its gradient is kept, and cleared row by row.

A gradient that is made anew each step is filled with zeros for every row, which costs more than what is done with those
that were looked up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowTable(nn.Embedding):
    """Adds what was looked up to a gradient that `clear` has kept; where none is kept, an embedding as any other."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.looked_up: list[Tensor] = []
        # The gradient that is cleared row by row; one that others put in its place is theirs.
        self.kept: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of ids of any shape."""
        adds = self.weight.grad is not None and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        # Of lookups that nobody clears, or that add nothing, none is noted: test-time training makes millions.
        if adds and self.weight.requires_grad and self.weight.grad is self.kept:
            self.looked_up.append(ids.flatten())
        return F.embedding(ids, self.weight, sparse=adds)

    def clear(self, *, keep: bool) -> None:
        """Before the first step and after each: a gradient of zeros that is kept, or none.

        Args:
            keep: whether only what was looked up here comes into it: not where it is a mean over several processes.
        """
        gradient = self.weight.grad
        if not keep or self.weight.device.type != "cpu":
            self.weight.grad = None
        elif gradient is None:
            self.weight.grad = torch.zeros_like(self.weight)
        elif self.looked_up and gradient is self.kept:
            gradient.index_fill_(0, torch.cat(self.looked_up), 0.0)
        else:
            gradient.zero_()
        self.kept = self.weight.grad
        self.looked_up.clear()
