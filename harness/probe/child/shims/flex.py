"""`flex_attention` with a backward pass: scores and mask as the script's functions say, written out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.attention.flex_attention as real
from torch import Tensor

from ..events import refuse, replaced
from ..patch import put
from .devices import mapped


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Any = None, block_mask: Any = None,
    scale: float | None = None, enable_gqa: bool = False, return_lse: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """Attention of (batch, heads, time, width), in float32."""
    replaced("flex_attention", "scores written out in float32")
    if return_lse:
        raise refuse("flex_attention return_lse", "the log-sum-exp is not kept here")
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not enable_gqa:
        raise ValueError("Expect query and key/value to have the same number of heads")
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query.float() @ key.float().transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    places = [
        torch.arange(size).view([-1 if axis == place else 1 for axis in range(4)])
        for place, size in enumerate(scores.shape)
    ]
    if score_mod is not None:
        scores = score_mod(scores, *places)
    if block_mask is None:
        return (scores.softmax(-1) @ value.float()).to(query.dtype)
    mask = torch.as_tensor(block_mask.mask_mod(*places)).expand(scores.shape)
    seen = mask.any(-1, keepdim=True)
    # A row that sees no key is zero, with a gradient of zero.
    weights = scores.masked_fill(~mask & seen, float("-inf")).softmax(-1) * seen
    return (weights @ value.float()).to(query.dtype)


def install() -> None:
    """Replace the function and where its masks live."""
    create = real.create_block_mask

    def create_block_mask(*arguments: Any, device: Any = "cuda", **keywords: Any) -> Any:
        keywords.pop("_compile", None)
        keywords["device"] = mapped(device)
        return create(*arguments, **keywords)

    put(real, flex_attention=flex_attention, create_block_mask=create_block_mask)
