"""Causal attention with an optional window, grouped key/value heads, rotary positions and normalized heads.

Shape letters: B batch, T time, L keys, H query heads, G key/value heads, E width of a head, Q queries of one
block, K keys that the block can see.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from reference_model.backends import WINDOW_BACKENDS
from reference_model.flex import flex_problem, flex_window_attention
from reference_model.memory import KeyValues
from reference_model.settings import ConfigError
from reference_model.window import BLOCK_TOKENS, key_blocks, window_attention, window_mask

# No model is trained on longer texts: only a memory that goes on and on comes here.
FAR_POSITION = 1 << 17


def rotary_tables(
    length: int, head_dim: int, base: float, device: torch.device, *, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (arXiv:2104.09864) from position `first` on, each T, 1, E/2 in float32.

    Far positions are turned back by whole turns in float64: in float32 nothing would be left of their angles.
    """
    frequencies = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    positions = torch.arange(first, first + length, dtype=torch.float32, device=device)
    angles = positions[:, None, None] * frequencies
    if (near := max(FAR_POSITION - first, 0)) < length:
        far = torch.arange(first + near, first + length, dtype=torch.float64, device=device)
        angles[near:] = (far[:, None, None] * frequencies.double()).remainder(2 * math.pi).float()
    return angles.cos(), angles.sin()


def normalized_heads(x_BTHE: Tensor, rotary: tuple[Tensor, Tensor], start: int = 0) -> Tensor:
    """Root-mean-square norm per head, then rotation of the first half of each head against the second.

    The first time step has position `start` in the tables, which may be longer. Tables for less than a head rotate
    its first channels only.
    """
    cos, sin = (table[start : start + x_BTHE.shape[1]] for table in rotary)
    normed_BTHE = F.rms_norm(x_BTHE, x_BTHE.shape[-1:]).to(x_BTHE.dtype)
    rotated = 2 * cos.shape[-1]
    if rotated == x_BTHE.shape[-1]:
        return rotate(normed_BTHE, cos, sin)
    return torch.cat((rotate(normed_BTHE[..., :rotated], cos, sin), normed_BTHE[..., rotated:]), -1)


class RotationContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the last dimension against the second: (a cos - b sin, b cos + a sin)."""
    if not torch.is_grad_enabled():
        return rotated_halves(x, cos, sin)
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


def causal_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int = 0, backend: str = "auto") -> Tensor:
    """Attend to oneself and what came before; under a window W, query q sees key k when 0 <= q - k < W.

    Keys that stand before the first query (L = P + T of them for T queries) are seen by every query, whatever the
    window. Where the window binds, a backend computes it:

    - `blocked`: queries in blocks, each against the keys that some query of it sees, so that the cost per token does
      not grow with the length; several blocks in one call on a CPU, one after the other elsewhere.
    - `flex`: torch's flex_attention with a mask of blocks; without a backward pass on a CPU.
    - `sdpa`: plain attention under a dense mask, whose cost per token grows with the length.
    - `auto`: `flex` on a GPU, else `blocked`.

    Args:
        q_BHTE: Queries; H is a multiple of G.
        k_BGLE: Keys.
        v_BGLE: Values.
        window: Visible tokens, oneself included; 0 for all.
        backend: One of WINDOW_BACKENDS.

    Returns:
        Mixed values, B, H, T, E.

    Raises:
        ConfigError: There is no such backend, or it cannot serve these tensors; the message says why.

    """
    chosen = choose_window(backend, q_BHTE, k_BGLE, v_BGLE)
    grouped, before = q_BHTE.shape[1] != k_BGLE.shape[1], k_BGLE.shape[2] - q_BHTE.shape[2]
    if window == 0 or q_BHTE.shape[2] <= window:
        # A few queries of zeros in front align both ends; a mask would cost more.
        q_BHLE = F.pad(q_BHTE, (0, 0, before, 0)) if before else q_BHTE
        mixed = F.scaled_dot_product_attention(q_BHLE, k_BGLE, v_BGLE, is_causal=True, enable_gqa=grouped)
        return mixed[:, :, before:]
    if chosen == "flex":
        return flex_window_attention(q_BHTE, k_BGLE, v_BGLE, window)
    if chosen == "sdpa":
        visible_TL = visible_keys(window, q_BHTE.shape[2], k_BGLE.shape[2], q_BHTE.device)
        return F.scaled_dot_product_attention(q_BHTE, k_BGLE, v_BGLE, attn_mask=visible_TL, enable_gqa=grouped)
    if q_BHTE.device.type == "cpu":
        return window_attention(q_BHTE, k_BGLE, v_BGLE, window)
    return blockwise_attention(q_BHTE, k_BGLE, v_BGLE, window)


def choose_window(backend: str, *tensors: Tensor) -> str:
    """The backend that computes attention under a window.

    Raises:
        ConfigError: See `causal_attention`.
    """
    if backend not in WINDOW_BACKENDS:
        raise ConfigError(f"SLIDING_WINDOW_BACKEND: {backend!r} is not one of {', '.join(WINDOW_BACKENDS)}")
    if backend == "auto":
        return "flex" if tensors[0].device.type == "cuda" else "blocked"
    if backend == "flex" and (problem := flex_problem(*tensors)):
        raise ConfigError(f"SLIDING_WINDOW_BACKEND: flex cannot compute this attention: {problem}")
    return backend


def visible_keys(window: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """Whether a query sees a key, T, L: those before the first query and those of its window."""
    before = keys - queries
    own_T1 = torch.arange(queries, device=device)[:, None]
    distance_TL = own_T1 - torch.arange(-before, queries, device=device)
    visible_TL = (distance_TL >= 0) & (distance_TL < window)
    visible_TL[:, :before] = True
    return visible_TL


def attention_after_meta(
    q_BHLE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, *, window: int, meta: int, backend: str = "auto"
) -> Tensor:
    """Attention of a text and the meta tokens before it, which have queries too and stay visible under the window.

    Args:
        q_BHLE: Queries of the meta tokens, then of the text.
        k_BGLE: Keys.
        v_BGLE: Values.
        window: As for `causal_attention`, within the text.
        meta: Leading positions that are meta tokens.
        backend: As for `causal_attention`.

    Returns:
        Mixed values, B, H, S, E.

    """
    if not meta or window == 0 or q_BHLE.shape[2] - meta <= window:
        return causal_attention(q_BHLE, k_BGLE, v_BGLE, window if not meta else 0, backend)
    first = causal_attention(q_BHLE[:, :, :meta], k_BGLE[:, :, :meta], v_BGLE[:, :, :meta])
    return torch.cat((first, causal_attention(q_BHLE[:, :, meta:], k_BGLE, v_BGLE, window, backend)), 2)


def blockwise_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
    """Window attention block by block with the library's operators, on any device; arguments as `causal_attention`.

    Keys and values are split once and joined per block: slicing them per block would make the backward pass fill one
    full-length gradient for each.
    """
    grouped, before = q_BHTE.shape[1] != k_BGLE.shape[1], k_BGLE.shape[2] - q_BHTE.shape[2]
    reach = key_blocks(window)
    mask_QK = window_mask(window, reach, q_BHTE.device)
    (k_always, k_text), (v_always, v_text) = (torch.split(x, [before, q_BHTE.shape[2]], 2) for x in (k_BGLE, v_BGLE))
    k_blocks, v_blocks = torch.split(k_text, BLOCK_TOKENS, 2), torch.split(v_text, BLOCK_TOKENS, 2)
    mixed = []
    for last, q_BHQE in enumerate(torch.split(q_BHTE, BLOCK_TOKENS, 2), 1):
        first = max(0, last - reach)
        keys, values = torch.cat((k_always, *k_blocks[first:last]), 2), torch.cat((v_always, *v_blocks[first:last]), 2)
        seen = keys.shape[2] - before
        visible = mask_QK[: q_BHQE.shape[2], (reach - last + first) * BLOCK_TOKENS :][:, :seen]
        visible = F.pad(visible, (before, 0), value=True)
        mixed.append(F.scaled_dot_product_attention(q_BHQE, keys, values, attn_mask=visible, enable_gqa=grouped))
    return torch.cat(mixed, 2)


def continued_attention(
    q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, kept: KeyValues, *, meta: int = 0, backend: str = "auto"
) -> Tensor:
    """Causal attention of a text's next tokens to themselves and to what is kept of those before; keeps them too.

    Behind kept ones, the cost of T tokens grows with T times the window (with T + those kept where there is none).

    Args:
        q_BHTE: Queries.
        k_BGLE: Keys; more than queries where meta tokens have none.
        v_BGLE: Values.
        kept: The keys and values before.
        meta: Leading keys that are meta tokens, where a text begins: they stay visible.
        backend: As for `causal_attention`; fewer queries than the window go under a dense mask.

    """
    choose_window(backend, q_BHTE, k_BGLE, v_BGLE)
    begins, queries = not kept.end, q_BHTE.shape[2]
    k_BGKE, v_BGKE = kept.extend(k_BGLE, v_BGLE, meta)
    if begins and queries == k_BGLE.shape[2]:
        return attention_after_meta(q_BHTE, k_BGLE, v_BGLE, window=kept.window, meta=meta, backend=backend)
    if begins:
        return causal_attention(q_BHTE, k_BGLE, v_BGLE, kept.window, backend)
    held = k_BGKE.shape[2] - queries - kept.pinned
    if queries >= (kept.window or held):
        # Queries of zeros for those kept align both ends.
        q_BHLE = F.pad(q_BHTE, (0, 0, held, 0))
        return causal_attention(q_BHLE, k_BGKE, v_BGKE, kept.window, backend)[:, :, held:]
    visible_TK = None
    if queries > 1:
        keys = k_BGKE.shape[2]
        own_T1 = torch.arange(keys - queries, keys, device=q_BHTE.device)[:, None]
        distance_TK = own_T1 - torch.arange(keys, device=q_BHTE.device)
        visible_TK = (distance_TK >= 0) & (distance_TK < (kept.window or keys))
        visible_TK[:, : kept.pinned] = True
    grouped = q_BHTE.shape[1] != k_BGLE.shape[1]
    return F.scaled_dot_product_attention(q_BHTE, k_BGKE, v_BGKE, attn_mask=visible_TK, enable_gqa=grouped)
