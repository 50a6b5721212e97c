"""Elementwise chains of the network: by PyTorch's operators, or each as one compiled kernel with its derivative.

The kernels serve float32 on a CPU; whatever else comes is computed by PyTorch's operators.

Shape letters: B batch, T time, D channels, H heads, E width of a head, R rows, V vocabulary, K taps, G groups of rows.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from reference_model.fused_cpp import FUSED_ROWS, FUSED_SOURCE
from reference_model.native import addresses, integers, native_or_warn, rows


class FusedContext(FunctionCtx):
    """What a forward pass leaves to its backward pass."""

    saved_tensors: tuple[Any, ...]
    needs_input_grad: tuple[bool, ...]
    sizes: ctypes.Array[ctypes.c_int64]
    shape: torch.Size
    scalar: Tensor
    outputs: tuple[bool, bool]


def fused_kernels(*tensors: Tensor | None) -> ctypes.CDLL | None:
    """The kernels, where they are there and can serve these tensors."""
    fit = all(t is None or (t.dtype == torch.float32 and t.device.type == "cpu" and t.numel()) for t in tensors)
    return native_or_warn(FUSED_SOURCE) if fit else None


def call_fused(name: str, given: tuple[Tensor | None, ...], found: tuple[Tensor | None, ...], *more: Any) -> None:  # noqa: ANN401 - what ctypes takes
    """Run one kernel."""
    library = native_or_warn(FUSED_SOURCE)
    if library is None:
        raise RuntimeError("the kernels that the forward pass used are gone")
    library[name](addresses(given), addresses(found), *more)


def groups_of(count: int) -> int:
    """Groups of rows whose sums are taken apart."""
    return -(-count // FUSED_ROWS)


class MixNorm(torch.autograd.Function):
    """y = a * x + b * u where there is a u, then y by its root mean square where that is asked for."""

    @staticmethod
    def forward(  # noqa: D102, PLR0917 - as the class says; autograd passes no names
        ctx: FusedContext,
        x: Tensor,
        u: Tensor | None,
        a_D: Tensor | None,
        b_D: Tensor | None,
        norm: bool,  # noqa: FBT001
    ) -> tuple[Tensor, ...]:
        (x, x_row), (u, u_row) = rows(x), (None, 0) if u is None else rows(u)
        a_D, b_D = (None if weight is None else weight.contiguous() for weight in (a_D, b_D))
        count, width = x.numel() // x.shape[-1], x.shape[-1]
        mixed = None if u is None and a_D is None else x.new_empty(x.shape)
        normed = x.new_empty(x.shape) if norm else None
        scale_R = x.new_empty(count) if norm else None
        y_row = x_row if mixed is None else width
        ctx.sizes, ctx.outputs = integers(count, width, x_row, u_row, y_row), (mixed is not None, norm)
        call_fused("mix_norm_forward", (x, u, a_D, b_D), (mixed, normed, scale_R), ctx.sizes)
        ctx.save_for_backward(x, u, a_D, b_D, x if mixed is None else mixed, scale_R)  # type: ignore[arg-type]  # None is saved too
        ctx.set_materialize_grads(False)
        return tuple(out for out in (mixed, normed) if out is not None)

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: D102 - as the class says
        x, u, a_D, b_D, y, scale_R = ctx.saved_tensors
        given = iter(None if grad is None else grad.contiguous() for grad in grads)
        dy, dn = (next(given) if there else None for there in ctx.outputs)
        count, width = ctx.sizes[0], ctx.sizes[1]
        dx = x.new_empty(x.shape)
        du = None if u is None else x.new_empty(x.shape)
        da_GD, db_GD = (None if w is None else x.new_empty(groups_of(count), width) for w in (a_D, b_D))
        call_fused("mix_norm_backward", (x, u, a_D, b_D, y, scale_R, dy, dn), (dx, du, da_GD, db_GD), ctx.sizes)
        sums = (None if part is None else part.sum(0) for part in (da_GD, db_GD))
        return dx, du, *sums, None


class RotatedHeads(torch.autograd.Function):
    """Norm of each head, rotation of its first half against the second, gain of each head."""

    @staticmethod
    def forward(ctx: FusedContext, x_BTHE: Tensor, cos: Tensor, sin: Tensor, gain_H: Tensor | None) -> Tensor:  # noqa: D102 - as the class says
        x_BTHE = x_BTHE if x_BTHE.stride(-1) == 1 else x_BTHE.contiguous()
        out, scale = x_BTHE.new_empty(x_BTHE.shape), x_BTHE.new_empty(x_BTHE.shape[:3])
        sizes = integers(*x_BTHE.shape, *x_BTHE.stride()[:3])
        call_fused("heads_forward", (x_BTHE, cos, sin, gain_H), (out, scale), sizes)
        ctx.save_for_backward(x_BTHE, cos, sin, gain_H, scale)  # type: ignore[arg-type]  # None is saved too
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 - as the class says
        x_BTHE, cos, sin, gain_H, scale = ctx.saved_tensors
        dy = grads[0] if grads[0].stride(-1) == 1 else grads[0].contiguous()
        batch, length, heads, _ = x_BTHE.shape
        dx = x_BTHE.new_empty(x_BTHE.shape)
        dgain_GH = None if gain_H is None else x_BTHE.new_empty(groups_of(batch * length), heads)
        sizes = integers(*x_BTHE.shape, *x_BTHE.stride()[:3], *dy.stride()[:3])
        call_fused("heads_backward", (x_BTHE, cos, sin, gain_H, scale, dy), (dx, dgain_GH), sizes)
        return dx, None, None, None if dgain_GH is None else dgain_GH.sum(0)


class ConvSilu(torch.autograd.Function):
    """Causal depthwise convolution, then SiLU."""

    @staticmethod
    def forward(ctx: FusedContext, x_BTD: Tensor, taps_KD: Tensor, bias_D: Tensor) -> Tensor:  # noqa: D102 - as the class says
        x_BTD, row = rows(x_BTD)
        taps_KD, y_BTD = taps_KD.contiguous(), x_BTD.new_empty(x_BTD.shape)
        ctx.sizes = integers(*x_BTD.shape, row, len(taps_KD))
        call_fused("conv_forward", (x_BTD, taps_KD, bias_D), (y_BTD,), ctx.sizes)
        ctx.save_for_backward(x_BTD, taps_KD, bias_D)
        return y_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102 - as the class says
        x_BTD, taps_KD, bias_D = ctx.saved_tensors
        batch, _, channels = x_BTD.shape
        dx_BTD, dtaps_BKD = x_BTD.new_empty(x_BTD.shape), x_BTD.new_empty(batch, *taps_KD.shape)
        dbias_BD = x_BTD.new_empty(batch, channels)
        given = (x_BTD, taps_KD, bias_D, grads[0].contiguous())
        call_fused("conv_backward", given, (dx_BTD, dtaps_BKD, dbias_BD), ctx.sizes)
        return dx_BTD, dtaps_BKD.sum(0), dbias_BD.sum(0)


class CappedEntropy(torch.autograd.Function):
    """Cross-entropy of cap * tanh(z), a loss for each row.

    Its derivative is made with it, as that of the mean, since that needs the same exponentials: it is kept in place of
    the scores, and is the answer as it stands where the mean is what is differentiated.
    """

    @staticmethod
    def forward(ctx: FusedContext, z_RV: Tensor, targets_R: Tensor, cap: float) -> Tensor:  # noqa: D102 - as the class says
        z_RV, targets_R = z_RV.contiguous(), targets_R.contiguous()
        losses_R = z_RV.new_empty(len(z_RV))
        dz_RV = torch.empty_like(z_RV) if ctx.needs_input_grad[0] else None
        more = integers(*z_RV.shape), ctypes.c_void_p(targets_R.data_ptr())
        call_fused("entropy", (z_RV, torch.tensor(cap)), (losses_R, dz_RV), *more)
        ctx.save_for_backward(dz_RV)  # type: ignore[arg-type]  # None is saved too
        return losses_R

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: D102 - as the class says
        (dz_RV,) = ctx.saved_tensors
        count = len(dz_RV)
        of_mean = bool((grads[0] == 1 / count).all())
        return dz_RV if of_mean else dz_RV * (grads[0] * count)[:, None], None, None


class SquaredRectifier(torch.autograd.Function):
    """Square of the leaky rectifier."""

    @staticmethod
    def forward(ctx: FusedContext, x: Tensor, slope: float) -> Tensor:  # noqa: D102 - as the class says
        x, ctx.scalar = x.contiguous(), torch.tensor(slope)
        y = torch.empty_like(x)
        call_fused("squared_forward", (x, ctx.scalar), (y,), integers(x.numel()))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FusedContext, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: D102 - as the class says
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        call_fused("squared_backward", (x, ctx.scalar, grads[0].contiguous()), (dx,), integers(x.numel()))
        return dx, None
