"""Causal attention with an optional window, grouped key/value heads, rotary positions and normalized heads.

Shape letters: B batch, T time, H query heads, G key/value heads, E width of a head, Q queries of one
block, K keys that the block can see.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from reference_model.memory import KeyValues
from reference_model.window import BLOCK_TOKENS, key_blocks, window_attention, window_mask


def rotary_tables(
    length: int, head_dim: int, base: float, device: torch.device, *, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (arXiv:2104.09864) from position `first` on, each T, 1, E/2 in float32."""
    frequencies = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    positions = torch.arange(first, first + length, dtype=torch.float32, device=device)
    angles = positions[:, None, None] * frequencies
    return angles.cos(), angles.sin()


def normalized_heads(x_BTHE: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Root-mean-square norm per head, then rotation of the first half of each head against the second."""
    return rotate(F.rms_norm(x_BTHE, x_BTHE.shape[-1:]).to(x_BTHE.dtype), *rotary)


class RotationContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the last dimension against the second: (a cos - b sin, b cos + a sin)."""
    rotated: Tensor = Rotation.apply(x, cos, sin)  # type: ignore[no-untyped-call]  # untyped in torch
    return rotated


class Rotation(torch.autograd.Function):
    """A rotation; its derivative is the rotation back. Angles get no gradient."""

    @staticmethod
    def forward(ctx: RotationContext, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the rotated tensor, contiguous, in the type of x."""
        ctx.save_for_backward(cos, sin)
        return rotated_halves(x, cos, sin)

    @staticmethod
    def backward(ctx: RotationContext, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Rotate the gradient back."""
        cos, sin = ctx.saved_tensors
        return rotated_halves(grads[0], cos, -sin), None, None


def rotated_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Compute the rotation without temporaries."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    (first, second), (out_first, out_second) = torch.chunk(x, 2, -1), torch.chunk(out, 2, -1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out


def causal_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int = 0) -> Tensor:
    """Attend to oneself and what came before; under a window W, query q sees key k when 0 <= q - k < W.

    Where the window binds, queries are taken in blocks, each against the keys that some query of it sees, so that the
    cost per token does not grow with the length: several blocks in one call on a CPU, one after the other elsewhere.

    Args:
        q_BHTE: Queries; H is a multiple of G.
        k_BGTE: Keys.
        v_BGTE: Values.
        window: Visible tokens, oneself included; 0 for all.

    Returns:
        Mixed values, B, H, T, E.

    """
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    if window == 0 or q_BHTE.shape[2] <= window:
        return F.scaled_dot_product_attention(q_BHTE, k_BGTE, v_BGTE, is_causal=True, enable_gqa=grouped)
    if q_BHTE.device.type == "cpu":
        return window_attention(q_BHTE, k_BGTE, v_BGTE, window)
    return blockwise_attention(q_BHTE, k_BGTE, v_BGTE, window)


def blockwise_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int) -> Tensor:
    """Window attention block by block with the library's operators, on any device; arguments as `causal_attention`.

    Keys and values are split once and joined per block: slicing them per block would make the backward pass fill one
    full-length gradient for each.
    """
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    reach = key_blocks(window)
    mask_QK = window_mask(window, reach, q_BHTE.device)
    k_blocks, v_blocks = torch.split(k_BGTE, BLOCK_TOKENS, 2), torch.split(v_BGTE, BLOCK_TOKENS, 2)
    mixed = []
    for last, q_BHQE in enumerate(torch.split(q_BHTE, BLOCK_TOKENS, 2), 1):
        first = max(0, last - reach)
        k_BGKE, v_BGKE = (torch.cat(blocks[first:last], 2) for blocks in (k_blocks, v_blocks))
        visible = mask_QK[: q_BHQE.shape[2], (reach - last + first) * BLOCK_TOKENS :][:, : k_BGKE.shape[2]]
        mixed.append(F.scaled_dot_product_attention(q_BHQE, k_BGKE, v_BGKE, attn_mask=visible, enable_gqa=grouped))
    return torch.cat(mixed, 2)


def continued_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, kept: KeyValues) -> Tensor:
    """Causal attention of a text's next tokens to themselves and to what is kept of those before; keeps them too.

    Made for a few tokens at a time: behind kept ones, the cost of T tokens grows with T * (T + those kept).
    """
    queries, before = q_BHTE.shape[2], kept.held
    k_BGKE, v_BGKE = kept.extend(k_BGTE, v_BGTE)
    if not before:
        return causal_attention(q_BHTE, k_BGTE, v_BGTE, kept.window)
    visible_TK = None
    if queries > 1:
        keys = k_BGKE.shape[2]
        own_T1 = torch.arange(keys - queries, keys, device=q_BHTE.device)[:, None]
        distance_TK = own_T1 - torch.arange(keys, device=q_BHTE.device)
        visible_TK = (distance_TK >= 0) & (distance_TK < (kept.window or keys))
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    return F.scaled_dot_product_attention(q_BHTE, k_BGKE, v_BGKE, attn_mask=visible_TK, enable_gqa=grouped)
