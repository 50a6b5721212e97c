"""Muon: momentum, then the nearest semi-orthogonal matrix by five Newton-Schulz steps, then a step of fixed size.

By Keller Jordan (https://kellerjordan.github.io/posts/muon/). Matrices of one shape are orthogonalized together: on a
CPU one batched product of 4 matrices costs far less than 4 products. Several processes may divide the matrices of a
shape among them, as pull request 852 does: a process adds up, orthogonalizes and keeps the momentum of its share only.

Shape letters: N matrices of one shape, S those of one process's share, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from reference_model.exchange import Exchange, Pending

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_EPSILON = 1e-7


def orthogonalize(matrices_NRC: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Push every singular value of each matrix towards 1 with a quintic Newton-Schulz iteration.

    Args:
        matrices_NRC: (N, R, C), any float dtype.
        steps: Iterations; five bring the singular values of a typical gradient into about 0.7 to 1.2.
        dtype: Of the products.

    Returns:
        (N, R, C) in `dtype`.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    X_NRC = matrices_NRC.to(dtype)
    X_NRC = X_NRC / (X_NRC.norm(dim=(-2, -1), keepdim=True) + NEWTON_SCHULZ_EPSILON)
    tall = X_NRC.size(-2) > X_NRC.size(-1)
    if tall:
        X_NRC = X_NRC.mT
    for _ in range(steps):
        gram_NRR = X_NRC @ X_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        X_NRC = torch.baddbmm(X_NRC, polynomial_NRR, X_NRC, beta=a)
    return X_NRC.mT if tall else X_NRC


class Muon:
    """Nesterov momentum, orthogonalized, with decoupled weight decay; one batched iteration per matrix shape.

    A bank of matrices (three axes) counts as so many matrices: each is orthogonalized by itself. Every process has a
    share of the same size of a shape's matrices: the last shares may be filled up with zeros.

    Attributes:
        stacks: Parameters by the shape of their matrices.
        momentum_buffers: Of this process's share of each stack, S, R, C.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        weight_decay: float,
        steps: int,
        dtype: torch.dtype,
        exchange: Exchange | None = None,
    ) -> None:
        self.weight_decay = weight_decay
        self.steps = steps
        self.dtype = dtype
        self.exchange = exchange or Exchange()
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(parameter.shape[-2:]), []).append(parameter)
        self.stacks = tuple(tuple(stack) for stack in by_shape.values())
        self.momentum_buffers = [self._new_buffer(stack) for stack in self.stacks]

    def _new_buffer(self, stack: Sequence[nn.Parameter]) -> Tensor:
        share = -(-_count(stack) // self.exchange.worker.world_size)
        return stack[0].new_zeros((share, *stack[0].shape[-2:]), dtype=torch.float32)

    def momentum(self) -> list[Tensor]:
        """The momentum of every stack, N, R, C; every process must call it, since each holds its share."""
        whole = [self.exchange.all_shares(buffer_SRC)() for buffer_SRC in self.momentum_buffers]
        return [buffer_NRC[: _count(stack)] for stack, buffer_NRC in zip(self.stacks, whole, strict=True)]

    def load_momentum(self, momentum: Sequence[Tensor]) -> None:
        """Take this process's share of what `momentum` gave."""
        for buffer_SRC, whole_NRC in zip(self.momentum_buffers, momentum, strict=True):
            first = self.exchange.worker.rank * len(buffer_SRC)
            mine = whole_NRC[first : first + len(buffer_SRC)]
            buffer_SRC.zero_()[: len(mine)].copy_(mine)

    @torch.no_grad()
    def sent_gradients(self) -> Iterator[Pending]:
        """Begin, stack after stack, to add up the gradients over the processes: each gets the sums of its share."""
        for stack, buffer_SRC in zip(self.stacks, self.momentum_buffers, strict=True):
            gradient_NRC = _matrices([torch.zeros_like(p) if p.grad is None else p.grad for p in stack]).float()
            missing = len(buffer_SRC) * self.exchange.worker.world_size - len(gradient_NRC)
            if missing:
                filling = gradient_NRC.new_zeros((missing, *gradient_NRC.shape[1:]))
                gradient_NRC = torch.cat([gradient_NRC, filling])
            yield self.exchange.share_of_total(gradient_NRC)

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, sent: Iterable[Pending] | None = None) -> None:
        """Apply one update from the means of the parameters' gradients; a missing gradient counts as zero.

        Args:
            learning_rate: Of this step.
            momentum: Of this step.
            sent: What `sent_gradients` gave, where it was begun before.
        """
        size = self.exchange.worker.world_size
        shares = self.sent_gradients() if sent is None else sent
        last: tuple[Sequence[nn.Parameter], Pending] | None = None
        for stack, buffer_SRC, pending in zip(self.stacks, self.momentum_buffers, shares, strict=True):
            gradient_SRC = pending().div_(size)
            buffer_SRC.mul_(momentum).add_(gradient_SRC)
            nesterov_SRC = gradient_SRC.add_(buffer_SRC, alpha=momentum)
            update = self.exchange.all_shares(orthogonalize(nesterov_SRC, self.steps, self.dtype))
            # The updates before are on their way while these are computed.
            if last is not None:
                self._apply(*last, learning_rate)
            last = stack, update
        if last is not None:
            self._apply(*last, learning_rate)

    def _apply(self, stack: Sequence[nn.Parameter], update: Pending, learning_rate: float) -> None:
        update_NRC = update()[: _count(stack)]
        rows, columns = update_NRC.shape[-2:]
        scale = max(1.0, rows / columns) ** 0.5
        counts = [_count([parameter]) for parameter in stack]
        for parameter, part in zip(stack, torch.split(update_NRC, counts), strict=True):
            parameter.mul_(1.0 - learning_rate * self.weight_decay)
            parameter.add_(part.view_as(parameter).to(parameter.dtype), alpha=-learning_rate * scale)


def _matrices(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of all matrices of tensors of two or three axes, N, R, C."""
    return torch.cat([tensor.detach().reshape(-1, *tensor.shape[-2:]) for tensor in tensors])


def _count(stack: Sequence[Tensor]) -> int:
    """How many matrices tensors of two or three axes hold."""
    return sum(tensor.shape[:-2].numel() for tensor in stack)
