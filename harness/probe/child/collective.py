"""What collective operations carry from process to process besides numbers: what the tensors have learned.

The stand-ins for `torch.distributed` call `watched` around each operation; a tracer registers a carrier. Every process
of a group has to make the same calls in the same order, as for the operation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")
_all_reduce = dist.all_reduce


class Carrier(Protocol):
    """Knows what tensors have learned."""

    def tell(self, tensors: Sequence[Any]) -> torch.Tensor:
        """What these have learned, as whole numbers of which the largest counts."""
        ...

    def hear(self, tensors: Sequence[Any], told: torch.Tensor) -> None:
        """These hold now what has learned what was told."""
        ...


class State:
    """One for each process.

    Attributes:
        carrier: who follows what is learned, if anybody does.
        synchronizing: whether the next backward pass adds gradients up over all processes.
    """

    carrier: Carrier | None = None
    synchronizing: bool = False


def watched(
    sources: Sequence[Any], outputs: Sequence[Any], group: Any, operation: Callable[[], Result], *, silent: bool = False
) -> Result:
    """Make a collective operation, and carry along what its tensors have learned.

    Args:
        sources: what this process gives.
        outputs: what it gets.
        group: the process group.
        operation: makes the operation and waits for it.
        silent: this process gives nothing.
    """
    carrier = State.carrier
    if carrier is None:
        return operation()
    told = carrier.tell(() if silent else sources)
    result = operation()
    carrier.hear(outputs, most(told, group))
    return result


def most(told: torch.Tensor, group: Any = None) -> torch.Tensor:
    """The largest of what each process tells."""
    with torch._C.DisableTorchFunction():
        _all_reduce(told, dist.ReduceOp.MAX, group)
    return told
