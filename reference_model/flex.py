"""Window attention by torch's flex_attention, which skips the blocks of a mask that hide everything.

Compiled on a GPU, which was not run here; on a CPU it runs as it is, without a backward pass, for the tests.

Shape letters: B batch, T time, L keys, H query heads, G key/value heads, E width of a head.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


def flex_problem(*tensors: Tensor) -> str:
    """Why flex_attention cannot be used for these, or an empty string."""
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if tensors[0].device.type == "cpu" and wanted:
        return "it has no backward pass on a CPU"
    return ""


def flex_window_attention(q_BHTE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, window: int) -> Tensor:
    """Attend to oneself and the `window` - 1 tokens before, and to all keys that stand before the first query.

    Returns:
        Mixed values, B, H, T, E.

    """
    mask = window_block_mask(window, q_BHTE.shape[2], k_BGLE.shape[2], str(q_BHTE.device))
    attention = flex_operator(compiled=q_BHTE.device.type != "cpu")
    grouped = q_BHTE.shape[1] != k_BGLE.shape[1]
    if not torch.is_grad_enabled():
        # On a CPU it refuses tensors that could want a gradient, even where none is recorded.
        q_BHTE, k_BGLE, v_BGLE = q_BHTE.detach(), k_BGLE.detach(), v_BGLE.detach()
    mixed: Tensor = attention(q_BHTE, k_BGLE, v_BGLE, block_mask=mask, enable_gqa=grouped)
    return mixed


@functools.lru_cache(maxsize=32)
def window_block_mask(window: int, queries: int, keys: int, device: str) -> Any:  # noqa: ANN401 - torch's type, imported below
    """The mask of blocks of a window; making it costs more than one use of it."""
    from torch.nn.attention.flex_attention import create_block_mask

    before = keys - queries

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query + before - key
        return (key < before) | ((distance >= 0) & (distance < window))

    return create_block_mask(visible, None, None, queries, keys, device=device)


@functools.cache
def flex_operator(*, compiled: bool) -> Any:  # noqa: ANN401 - a function of torch's, or its compiled form
    """The operator itself."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention
