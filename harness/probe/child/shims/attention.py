"""FlashAttention by PyTorch's own attention: the same numbers up to rounding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from ..events import refuse, replaced
from ..patch import module

Tensor = torch.Tensor
FULL = (-1, -1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None, causal: bool, window: Any = FULL, softcap: float = 0.0
) -> Tensor:
    """Attention of (batch, time, heads, width); a mask is aligned with the last key, as FlashAttention does."""
    replaced("flash_attn", "scaled_dot_product_attention")
    left, right = (FULL if window is None else tuple(window)) if not isinstance(window, int) else (window, window)
    right = 0 if causal else right
    groups = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    rows, columns = q.shape[2], k.shape[2]
    plain = left < 0 or left >= columns
    if softcap:
        mask = _mask(rows, columns, left, right)
        return _capped(q, k, v, scale or q.shape[-1] ** -0.5, softcap, mask).transpose(1, 2)
    if plain and (right < 0 or (right == 0 and rows == columns)):
        return F.scaled_dot_product_attention(q, k, v, is_causal=right == 0, scale=scale).transpose(1, 2)
    mask = _mask(rows, columns, left, right)
    seen = mask.any(-1, keepdim=True)
    # A row that sees no key is zero in FlashAttention, and so is its gradient.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~seen, scale=scale) * seen
    return out.transpose(1, 2)


def _mask(rows: int, columns: int, left: int, right: int) -> Tensor:
    place = torch.arange(rows)[:, None] + columns - rows
    key = torch.arange(columns)[None, :]
    mask = torch.ones(rows, columns, dtype=torch.bool)
    if left >= 0:
        mask &= key >= place - left
    if right >= 0:
        mask &= key <= place + right
    return mask


def _capped(q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float, mask: Tensor) -> Tensor:
    scores = (q.float() @ k.float().transpose(-1, -2)) * scale
    scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)
    return (weights @ v.float()).to(v.dtype)


def _settings(keywords: dict[str, Any]) -> dict[str, Any]:
    """Arguments that all variants share; what cannot be done is refused."""
    if keywords.get("dropout_p"):
        raise refuse("flash_attn dropout", "its random numbers are the GPU's")
    for name in ("alibi_slopes", "qv", "block_table", "q_descale", "seqused_q", "seqused_k", "rotary_cos"):
        if keywords.get(name) is not None:
            raise refuse(f"flash_attn {name}", "has no equivalent here")
    if keywords.get("attention_chunk"):
        raise refuse("flash_attn attention_chunk", "has no equivalent here")
    return {
        "scale": keywords.get("softmax_scale"),
        "causal": bool(keywords.get("causal", False)),
        "window": keywords.get("window_size", FULL),
        "softcap": float(keywords.get("softcap", 0.0) or 0.0),
    }


def _named(names: tuple[str, ...], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names, arguments, strict=False)), **keywords}


TWO = ("dropout_p", "softmax_scale", "causal", "window_size", "softcap", "alibi_slopes")
THREE = ("softmax_scale", "causal", "qv", "q_descale", "k_descale", "v_descale", "window_size")
LENGTHS = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")


def _variant(names: tuple[str, ...]) -> SimpleNamespace:
    """The functions of one major version, which differ by the order of their arguments."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, *arguments: Any, **keywords: Any) -> Any:
        values = _named(names, arguments, keywords)
        out = attend(q, k, v, **_settings(values))
        return _with_lse(out, q, k, values)

    def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, *arguments: Any, **keywords: Any) -> Any:
        extra = ("seqused_q", "seqused_k") if names is THREE else ()
        values = _named((*LENGTHS, *extra, *names), arguments, keywords)
        settings = _settings(values)
        starts_q, starts_k = values["cu_seqlens_q"].tolist(), values["cu_seqlens_k"].tolist()
        out = torch.zeros_like(q[..., : v.shape[-1]])
        pieces: list[Tensor] = []
        for number in range(len(starts_q) - 1):
            rows, columns = slice(*starts_q[number : number + 2]), slice(*starts_k[number : number + 2])
            if rows.start < rows.stop:
                pieces.append(attend(q[None, rows], k[None, columns], v[None, columns], **settings)[0])
        done = torch.cat(pieces) if pieces else out
        done = torch.cat([done, out[done.shape[0] :]]) if done.shape[0] < out.shape[0] else done
        return _with_lse(done, q, k, values)

    def flash_attn_qkvpacked_func(qkv: Tensor, *arguments: Any, **keywords: Any) -> Any:
        return flash_attn_func(*qkv.unbind(2), *arguments, **keywords)

    def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, *arguments: Any, **keywords: Any) -> Any:
        return flash_attn_func(q, *kv.unbind(2), *arguments, **keywords)

    return SimpleNamespace(
        flash_attn_func=flash_attn_func,
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_qkvpacked_func=flash_attn_qkvpacked_func,
        flash_attn_kvpacked_func=flash_attn_kvpacked_func,
    )


def _with_lse(out: Tensor, q: Tensor, k: Tensor, values: dict[str, Any]) -> Any:
    if values.get("return_attn_probs") or values.get("return_softmax_lse"):
        raise refuse("flash_attn return_attn_probs", "the log-sum-exp is not kept here")
    return out


def install() -> None:
    """Register the packages under the names that scripts import."""
    two, three = vars(_variant(TWO)), vars(_variant(THREE))
    module("flash_attn", **two)
    module("flash_attn.flash_attn_interface", **two)
    module("flash_attn.cute", **three)
    module("flash_attn.cute.interface", **three)
    module("flash_attn_interface", **three)
    module("flash_attn_3", **three)
    module("flash_attn_3.flash_attn_interface", **three)
    module("hopper")
    module("hopper.flash_attn_interface", **three)

    def get_kernel(name: str, *_arguments: Any, **_keywords: Any) -> Any:
        if "flash" not in name:
            raise refuse(f"kernels.get_kernel({name!r})", "only FlashAttention has an equivalent")
        return SimpleNamespace(**(three if "3" in name else two), flash_attn_interface=SimpleNamespace(**three))

    module("kernels", get_kernel=get_kernel)
