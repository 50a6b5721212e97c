"""Attention under a window on a CPU, at a cost per token that does not grow with the length.

Queries are taken in blocks, each against the whole blocks of keys that some query of it sees. Several blocks go into
one call, as a batch: their keys are overlapping views of the same memory, so that nothing is copied for them, and the
backward pass adds into one gradient instead of filling one of full length for each block.

Shape letters: B batch, T time, L keys, H query heads, G key/value heads, R query heads that share a key/value head,
E width of a head, Q queries of one block, K keys that the block can see, S blocks of one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK_TOKENS = 128
# Blocks of one call: enough to keep the threads busy, few enough for their intermediate results to stay in a cache.
CALL_BLOCKS = 8


class WindowContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    window: int


@dataclass(frozen=True)
class Call:
    """Consecutive blocks of queries that see equally many blocks of keys.

    Attributes:
        first: First query block.
        blocks: How many.
        reach: Key blocks that each of them sees, its own included.
    """

    first: int
    blocks: int
    reach: int

    @property
    def queries(self) -> slice:
        """Positions of the queries."""
        return slice(self.first * BLOCK_TOKENS, (self.first + self.blocks) * BLOCK_TOKENS)

    @property
    def keys(self) -> slice:
        """Positions of all keys that some query sees."""
        return slice((self.first + 1 - self.reach) * BLOCK_TOKENS, self.queries.stop)

    def key_part(self, number: int) -> slice:
        """Positions of the `number`-th key block of every query block."""
        start = self.keys.start + number * BLOCK_TOKENS
        return slice(start, start + self.blocks * BLOCK_TOKENS)


def calls(length: int, window: int) -> Iterator[Call]:
    """Cover a length (a multiple of the block) with calls; the first blocks see fewer keys and go alone."""
    blocks, reach = length // BLOCK_TOKENS, key_blocks(window)
    for first in range(min(reach - 1, blocks)):
        yield Call(first, 1, first + 1)
    for first in range(reach - 1, blocks, CALL_BLOCKS):
        yield Call(first, min(CALL_BLOCKS, blocks - first), reach)


def window_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
    """Attend to oneself and the `window` - 1 tokens before, and to all keys that stand before the first query.

    Args:
        q_BHTE: Queries; H is a multiple of G.
        k_BGLE: Keys, L >= T of them.
        v_BGLE: Values.
        window: Visible tokens, oneself included.

    Returns:
        Mixed values, B, H, T, E; side by side in memory by token, then head.

    """
    length = q_BHTE.shape[2]
    # Padding stands after the text, where no query of the text sees it.
    padding = (0, 0, 0, -length % BLOCK_TOKENS)
    padded = [F.pad(x, padding) if padding[-1] else x for x in (q_BHTE, k_BGLE, v_BGLE)]
    mixed: Tensor = WindowAttention.apply(*padded, window)  # type: ignore[no-untyped-call]  # untyped in torch
    return mixed[:, :, :length]


class WindowAttention(torch.autograd.Function):
    """Window attention with its backward pass; the number of queries is a multiple of the block."""

    @staticmethod
    def forward(ctx: WindowContext, q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
        """Return B, H, T, E."""
        out_BTHE = torch.empty_like(q_BHTE.transpose(1, 2), memory_format=torch.contiguous_format)
        out_BHTE = out_BTHE.transpose(1, 2)
        sums = []
        for call in calls(q_BHTE.shape[2], window):
            mask = _mask(window, call, q_BHTE, k_BGLE)
            for item in range(q_BHTE.shape[0]):
                operands = _operands(call, q_BHTE[item], k_BGLE[item], v_BGLE[item])
                mixed, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*operands, attn_mask=mask)  # noqa: SLF001 - the operator behind torch's own attention
                _put_back(out_BHTE[item], call, mixed)
                sums.append(log_sums)
        ctx.save_for_backward(q_BHTE, k_BGLE, v_BGLE, out_BHTE, *sums)
        ctx.window = window
        return out_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx: WindowContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of queries, keys and values."""
        q_BHTE, k_BGLE, v_BGLE, out_BHTE, *sums = ctx.saved_tensors
        dq_BHTE = torch.empty_like(q_BHTE)
        dk_BGLE, dv_BGLE = torch.zeros_like(k_BGLE), torch.zeros_like(v_BGLE)
        waiting = iter(sums)
        for call in calls(q_BHTE.shape[2], ctx.window):
            mask = _mask(ctx.window, call, q_BHTE, k_BGLE)
            for item in range(q_BHTE.shape[0]):
                grad, mixed = (_stacked(x[item], call, k_BGLE.shape[1]) for x in (grads[0], out_BHTE))
                operands = _operands(call, q_BHTE[item], k_BGLE[item], v_BGLE[item])
                flags = (0.0, False)  # no dropout; the mask says what is causal
                dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # noqa: SLF001 - as above
                    grad, *operands, mixed, next(waiting), *flags, attn_mask=mask
                )
                _put_back(dq_BHTE[item], call, dq)
                _add_back(dk_BGLE[item], call, dk)
                _add_back(dv_BGLE[item], call, dv)
        return dq_BHTE, dk_BGLE, dv_BGLE, None


def _operands(call: Call, q_HTE: Tensor, k_GLE: Tensor, v_GLE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries S, G, R*Q, E, and keys and values S, G, K, E: views, unless some stand before the first query."""
    keys, before = call.reach * BLOCK_TOKENS, k_GLE.shape[1] - q_HTE.shape[1]
    seen = [x[:, before:][:, call.keys].unfold(1, keys, BLOCK_TOKENS).permute(1, 0, 3, 2) for x in (k_GLE, v_GLE)]
    if before:
        always = (x[:, :before].expand(call.blocks, -1, -1, -1) for x in (k_GLE, v_GLE))
        seen = [torch.cat(parts, 2) for parts in zip(always, seen, strict=True)]
    return _stacked(q_HTE, call, k_GLE.shape[0]), seen[0], seen[1]


def _stacked(x_HTE: Tensor, call: Call, groups: int) -> Tensor:
    """One call's queries, those of the heads that share keys one after the other: S, G, R*Q, E."""
    heads, _, width = x_HTE.shape
    x_GRSQE = x_HTE[:, call.queries].reshape(groups, heads // groups, call.blocks, BLOCK_TOKENS, width)
    return x_GRSQE.permute(2, 0, 1, 3, 4).reshape(call.blocks, groups, -1, width)


def _put_back(target_HTE: Tensor, call: Call, x_SGXE: Tensor) -> None:
    """Undo the stacking into the call's queries."""
    blocks, groups, _, width = x_SGXE.shape
    x_GRSQE = x_SGXE.view(blocks, groups, -1, BLOCK_TOKENS, width).permute(1, 2, 0, 3, 4)
    grouped = torch.unflatten(target_HTE[:, call.queries], 0, (groups, -1))
    torch.unflatten(grouped, 2, (blocks, BLOCK_TOKENS)).copy_(x_GRSQE)


def _add_back(target_GLE: Tensor, call: Call, x_SGKE: Tensor) -> None:
    """Add what each block says of the keys it sees."""
    before = x_SGKE.shape[2] - call.reach * BLOCK_TOKENS
    target_GLE[:, :before].add_(x_SGKE[:, :, :before].sum(0))
    target_GTE = target_GLE[:, before:]
    for number, x_SGQE in enumerate(torch.split(x_SGKE[:, :, before:], BLOCK_TOKENS, 2)):
        part_GSQE = torch.unflatten(target_GTE[:, call.key_part(number)], 1, (call.blocks, BLOCK_TOKENS))
        part_GSQE.add_(x_SGQE.transpose(0, 1))


def _mask(window: int, call: Call, q_BHTE: Tensor, k_BGLE: Tensor) -> Tensor:
    """What to add to the products: 0 where a query sees a key, else minus infinity; R*Q, K."""
    visible_QK = F.pad(
        window_mask(window, call.reach, q_BHTE.device), (k_BGLE.shape[2] - q_BHTE.shape[2], 0), value=True
    )
    mask_QK = torch.zeros(visible_QK.shape, dtype=q_BHTE.dtype, device=q_BHTE.device)
    return mask_QK.masked_fill_(~visible_QK, float("-inf")).repeat(q_BHTE.shape[1] // k_BGLE.shape[1], 1)


def window_mask(window: int, reach: int, device: torch.device) -> Tensor:
    """Whether a query of one block sees a key of the `reach` blocks that end with its own (Q, K)."""
    own = (reach - 1) * BLOCK_TOKENS
    queries_Q1 = torch.arange(own, own + BLOCK_TOKENS, device=device)[:, None]
    distance_QK = queries_Q1 - torch.arange(own + BLOCK_TOKENS, device=device)
    return (distance_QK >= 0) & (distance_QK < window)


def key_blocks(window: int) -> int:
    """Blocks of keys that some query of one block sees, its own included."""
    return -(-(window - 1) // BLOCK_TOKENS) + 1
