"""Weights as small integers with one scale per row: pure functions on tensors.

Symmetric: value * scale, with |value| at most 127, 31 or 7. Shape letters: R rows (all leading dimensions), C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_model.config import QuantConfig

# Scales are stored as float16 and never below its smallest normal number: all of them have 11 significant bits.
SMALLEST_SCALE = 2.0**-14
CLIP_QUANTILES = (0.999999, 0.99999, 0.99995, 0.9999, 0.9995, 0.999)
# Parameters of more than one dimension that steer the network; like all vectors they stay in float32.
CONTROL_NAMES = ("resid_mix", "skip_weights", "A_log")
TOKEN_TABLE_NAMES = ("tok_emb.weight", "lm_head.weight", "table.weight")


class QuantizeError(ValueError):
    """A tensor that cannot be stored; the message names it where a name is known."""


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor in integers.

    Attributes:
        values: int8, of the tensor's shape.
        scale: float16, of the shape without its last dimension.
        bits: 4, 6 or 8.
        dtype: of the original.
    """

    values: Tensor
    scale: Tensor
    bits: int
    dtype: torch.dtype


def largest_level(bits: int) -> int:
    """The largest integer of a symmetric code: 7, 31 or 127."""
    return (1 << (bits - 1)) - 1


def quantize_rows(
    weight_RC: Tensor, bits: int, *, scale_floor: str = "none", clip_search: bool = False
) -> QuantizedTensor:
    """Round every row to integers times one scale.

    The scale is rounded up to float16 before it is used, so the largest weight still fits and, without clipping, no
    weight is off by more than half of the stored scale. Quantizing the result again gives the same integers.

    Args:
        weight_RC: floating point, finite, at least two dimensions; the last one is the row.
        bits: 4, 6 or 8.
        scale_floor: "published" keeps every scale at least 1 / largest level, as the original scripts do.
        clip_search: per row, choose among cutting at several quantiles and not at all, by squared error.

    Raises:
        QuantizeError: NaN, infinity, fewer than two dimensions, not floating point, or too large for a float16 scale.
    """
    if weight_RC.ndim < 2 or not weight_RC.is_floating_point() or not weight_RC.shape[-1]:
        raise QuantizeError(f"cannot quantize {weight_RC.dtype} of shape {tuple(weight_RC.shape)} by rows")
    check_finite(weight_RC)
    wide_RC = weight_RC.detach().double()
    least = 1.0 / largest_level(bits) if scale_floor == "published" else SMALLEST_SCALE
    limits = _clip_limits(wide_RC, clip_search=clip_search)
    scale_R, error_R = _scale_and_error(wide_RC, next(limits), bits, least)
    for limit_R in limits:
        other_R, other_error_R = _scale_and_error(wide_RC, limit_R, bits, least)
        scale_R = torch.where(other_error_R < error_R, other_R, scale_R)
        error_R = torch.minimum(other_error_R, error_R)
    if not bool(scale_R.isfinite().all()):
        raise QuantizeError(f"weights up to {wide_RC.abs().max():g} are too large for a float16 scale")
    return QuantizedTensor(_levels(wide_RC, scale_R, bits).to(torch.int8), scale_R.half(), bits, weight_RC.dtype)


def dequantize_rows(quantized: QuantizedTensor) -> Tensor:
    """The rounded tensor in its original shape and dtype; exact in float32."""
    return (quantized.values.float() * quantized.scale.float()[..., None]).to(quantized.dtype)


def check_finite(tensor: Tensor) -> None:
    """Raise QuantizeError when a tensor holds NaN or infinity."""
    if not bool(tensor.isfinite().all()):
        raise QuantizeError(f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} weights are not finite")


def tensor_kind(name: str, tensor: Tensor, config: QuantConfig) -> str:
    """How a weight is stored: "int4", "int6", "int8", "float16" or "float32".

    Vectors, scalars and control parameters stay float32; matrices above `keep_float_max_numel` elements become
    integers, of as many bits as their role has; the rest is float16, or float32 where a value would overflow it.
    """
    if tensor.ndim < 2 or name.rsplit(".", 1)[-1] in CONTROL_NAMES:
        return "float32"
    is_kept = config.fp16_embed and name.endswith("tok_emb.weight")
    if tensor.numel() > config.keep_float_max_numel and not is_kept:
        return f"int{role_bits(name, config)}"
    return "float16" if bool(tensor.half().isfinite().all()) else "float32"


def role_bits(name: str, config: QuantConfig) -> int:
    """Bits of a matrix by its role: of an MLP, a table by token, or any other."""
    if name.endswith(TOKEN_TABLE_NAMES):
        return config.embed_bits or config.bits
    return (config.mlp_bits if "mlp" in name else 0) or config.bits


def _clip_limits(wide_RC: Tensor, *, clip_search: bool) -> Iterator[Tensor]:
    """Candidates for each row's largest magnitude; the row's own maximum comes first and wins ties."""
    sorted_RC = wide_RC.abs().sort(dim=-1).values
    yield sorted_RC[..., -1]
    last = sorted_RC.shape[-1] - 1
    for quantile in CLIP_QUANTILES if clip_search else ():
        low = int(quantile * last)
        yield torch.lerp(sorted_RC[..., low], sorted_RC[..., min(low + 1, last)], quantile * last - low)


def _scale_and_error(wide_RC: Tensor, limit_R: Tensor, bits: int, least: float) -> tuple[Tensor, Tensor]:
    """Stored scale of each row cut at a limit, as float64, and the squared error with it."""
    scale_R = _round_up_to_half((limit_R / largest_level(bits)).clamp_min(least))
    return scale_R, (_levels(wide_RC, scale_R, bits) * scale_R[..., None] - wide_RC).square().sum(-1)


def _round_up_to_half(scale_R: Tensor) -> Tensor:
    """The next float16 number at or above each, as float64; infinity above the largest."""
    half_R = scale_R.half()
    above_R = (half_R.view(torch.int16) + 1).view(torch.float16)
    return torch.where(half_R.double() < scale_R, above_R, half_R).double()


def _levels(wide_RC: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    """Integers nearest to each weight over its scale, as float64."""
    top = largest_level(bits)
    return (wide_RC / scale_R[..., None]).round().clamp(-top, top)
