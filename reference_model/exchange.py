"""Messages of a training step among the processes: begun early, waited for where their content is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reference_model.worker import Worker

NO_REDUCE_SCATTER = "does not support reduce_scatter"
# Waits for a message and gives what it brought; every process calls these in one order.
Pending: TypeAlias = Callable[[], Tensor]


def ready(tensor: Tensor) -> Pending:
    """What needs no message."""
    return lambda: tensor


@dataclass(frozen=True)
class Exchange:
    """Begins messages among the processes of a worker; by itself a process has everything already.

    Shape letters: N whatever is dealt out, S a process's share of it.

    Attributes:
        worker: This process.
        overlapped: Whether work may go on while a message is under way.
    """

    worker: Worker = field(default_factory=Worker)
    overlapped: bool = True

    def total(self, tensor: Tensor) -> Pending:
        """The sum over all processes, in place."""
        if self.worker.world_size == 1:
            return ready(tensor)
        return self._pending(dist.all_reduce(tensor, async_op=True), tensor)

    def share_of_total(self, parts_N: Tensor) -> Pending:
        """This process's share of the sum over all processes, S; N is a multiple of their number."""
        if self.worker.world_size == 1:
            return ready(parts_N)
        shares = parts_N.chunk(self.worker.world_size)
        mine_S = torch.empty_like(shares[0])
        try:
            work = dist.reduce_scatter(mine_S, list(shares), async_op=True)
        except RuntimeError as error:
            # gloo in older versions of torch has none, and says so in every process before anything is sent: all get
            # everything, and each keeps its share. Another failure is of this process alone, and the others go on.
            if dist.get_backend() != "gloo" or NO_REDUCE_SCATTER not in str(error):
                raise
            return self._pending(dist.all_reduce(parts_N, async_op=True), shares[self.worker.rank])
        return self._pending(work, mine_S)

    def all_shares(self, mine_S: Tensor) -> Pending:
        """The shares of all processes, N, in their order."""
        if self.worker.world_size == 1:
            return ready(mine_S)
        all_N = mine_S.new_empty((self.worker.world_size * len(mine_S), *mine_S.shape[1:]))
        shares = list(all_N.chunk(self.worker.world_size))
        return self._pending(dist.all_gather(shares, mine_S.contiguous(), async_op=True), all_N)

    def _pending(self, work: dist.Work, result: Tensor) -> Pending:
        def wait() -> Tensor:
            work.wait()
            return result

        if not self.overlapped:
            work.wait()
        return wait


def average_gradients(parameters: Sequence[nn.Parameter], exchange: Exchange) -> Callable[[], None]:
    """Begin to replace every gradient by its mean over the processes, in one message; a missing one counts as zero.

    Returns:
        Waits for the message and puts the means in place.
    """
    size = exchange.worker.world_size
    if size == 1 or not parameters:
        return lambda: None
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    pending = exchange.total(torch.cat([gradient.flatten() for gradient in gradients]))

    def place() -> None:
        parts = torch.split(pending() / size, [gradient.numel() for gradient in gradients])
        for parameter, mean in zip(parameters, parts, strict=True):
            parameter.grad = mean.view_as(parameter)

    return place
