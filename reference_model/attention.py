"""Causal attention with an optional window, grouped key/value heads, rotary positions and normalized heads.

Shape letters: B batch, T time, H query heads, G key/value heads, E width of a head, N blocks, Q queries of one block,
K keys that one block can see.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_BLOCK_TOKENS = 256


def rotary_tables(length: int, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (arXiv:2104.09864), each T, 1, E/2 in float32."""
    frequencies = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None, None] * frequencies
    return angles.cos(), angles.sin()


def normalized_heads(x_BTHE: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Root-mean-square norm per head, then rotation of the first half of each head against the second."""
    cos, sin = rotary
    first, second = F.rms_norm(x_BTHE, x_BTHE.shape[-1:]).chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x_BTHE.dtype)


def causal_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int = 0) -> Tensor:
    """Attend to oneself and what came before; under a window W, query q sees key k when 0 <= q - k < W.

    Plain causal attention for the first W queries, where the window does not bind; blocks of queries against the keys
    they can see after that, so that the cost per token does not grow with the length.

    Args:
        q_BHTE: Queries; H is a multiple of G.
        k_BGTE: Keys.
        v_BGTE: Values.
        window: Visible tokens, oneself included; 0 for all.

    Returns:
        Mixed values, B, H, T, E.

    """
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    head = slice(0, window or None)
    mixed_BHTE = F.scaled_dot_product_attention(
        q_BHTE[:, :, head], k_BGTE[:, :, head], v_BGTE[:, :, head], is_causal=True, enable_gqa=grouped
    )
    if window == 0 or q_BHTE.shape[2] <= window:
        return mixed_BHTE
    return torch.cat((mixed_BHTE, blocked_attention(q_BHTE[:, :, window:], k_BGTE, v_BGTE, window)), 2)


def blocked_attention(q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, window: int) -> Tensor:
    """Window attention of the queries after the first W, in blocks; keys and values include the first W tokens."""
    batch, heads, time, width = q_BHTE.shape
    block = min(WINDOW_BLOCK_TOKENS, time)
    padding = (0, 0, 0, -time % block)
    q_NBHQE = F.pad(q_BHTE, padding).unfold(2, block, block).permute(2, 0, 1, 4, 3)
    k_NBGKE, v_NBGKE = (
        F.pad(tensor, padding).unfold(2, window + block, block).permute(2, 0, 1, 4, 3) for tensor in (k_BGTE, v_BGTE)
    )
    distance_QK = window + torch.arange(block)[:, None] - torch.arange(window + block)
    mixed = F.scaled_dot_product_attention(
        q_NBHQE.flatten(0, 1),
        k_NBGKE.flatten(0, 1),
        v_NBGKE.flatten(0, 1),
        attn_mask=((distance_QK >= 0) & (distance_QK < window)).to(q_BHTE.device),
        enable_gqa=heads != k_BGTE.shape[1],
    )
    mixed_BHTE = mixed.view(-1, batch, heads, block, width).permute(1, 2, 0, 3, 4).reshape(batch, heads, -1, width)
    return mixed_BHTE[:, :, :time]
