"""Mamba's causal depthwise convolution, in the layout that the projections around it use.

Shape letters: B batch, T time, D channels, K taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from reference_model.backends import CONV_BACKENDS
from reference_model.cuda import cuda_conv, cuda_conv_problem
from reference_model.fused import ConvSilu, fused_kernels
from reference_model.fused_cpp import FUSED_SOURCE, FUSED_TAPS
from reference_model.memory import Tail
from reference_model.native import native_library
from reference_model.settings import ConfigError


class ConvContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]


class DepthwiseConv(nn.Module):
    """One filter per channel over this and the K - 1 earlier steps, zeros before the first.

    Same parameters as `torch.nn.Conv1d` with one group per channel; the last tap is the present step.
    """

    def __init__(self, channels: int, width: int, backend: str = "torch") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, width))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.backend = backend

    def forward(self, x_BTD: Tensor, tail: Tail | None = None, *, silu: bool = False) -> Tensor:
        """Return y_BTD in the type of the weights, whatever the surrounding autocast says; goes on after a tail.

        Raises:
            ConfigError: The backend cannot serve; the message says why.
        """
        x_BTD = x_BTD.to(self.weight.dtype)
        return causal_conv(x_BTD, self.weight, self.bias, tail, silu=silu, backend=self.backend)


def causal_conv(
    x_BTD: Tensor,
    weight_D1K: Tensor,
    bias_D: Tensor,
    tail: Tail | None = None,
    *,
    silu: bool = False,
    backend: str = "torch",
) -> Tensor:
    """Convolve causally; differentiable, what stands before among it.

    Args:
        x_BTD: Input; all tensors have one type.
        weight_D1K: Taps.
        bias_D: Bias.
        tail: The inputs before, zeros when absent; keeps the last ones in turn.
        silu: Whether a SiLU follows.
        backend: One of CONV_BACKENDS; `auto` takes causal-conv1d's kernel where the tensors are on a GPU and the
            package is there, else the compiled one where it can serve, else PyTorch's operators.

    Returns:
        y_BTD.

    Raises:
        ConfigError: There is no such backend, or it cannot serve these tensors; the message says why.

    """
    chosen = choose_conv(backend, x_BTD, weight_D1K, silu=silu)
    if chosen == "cuda":
        before_BKD = None if tail is None else tail.before(x_BTD, weight_D1K.shape[2] - 1)
        y_BTD, after_BKD = cuda_conv(x_BTD, weight_D1K[:, 0], bias_D, before_BKD, silu=silu)
        if tail is not None:
            tail.items = after_BKD if after_BKD is None else after_BKD.detach()
        return y_BTD
    reach = 0 if tail is None else weight_D1K.shape[2] - 1
    joined_BTD = x_BTD if tail is None else tail.join(x_BTD, reach)
    if chosen == "cpp":
        lit_BTD: Tensor = ConvSilu.apply(joined_BTD, weight_D1K[:, 0].t(), bias_D)  # type: ignore[no-untyped-call]  # untyped in torch
        return lit_BTD[:, reach:]
    if not torch.is_grad_enabled():
        y_BTD = convolved(joined_BTD, weight_D1K, bias_D)
    else:
        y_BTD = CausalConv.apply(joined_BTD, weight_D1K, bias_D)  # type: ignore[no-untyped-call]  # untyped in torch
    return F.silu(y_BTD[:, reach:]) if silu else y_BTD[:, reach:]


def choose_conv(backend: str, x_BTD: Tensor, weight_D1K: Tensor, *, silu: bool) -> str:
    """The backend that computes a convolution.

    Raises:
        ConfigError: See `causal_conv`.
    """
    if backend not in CONV_BACKENDS:
        raise ConfigError(f"HYMBA_CONV_BACKEND: {backend!r} is not one of {', '.join(CONV_BACKENDS)}")
    taps = weight_D1K.shape[2]
    if backend == "auto":
        if not cuda_conv_problem(x_BTD, taps):
            return "cuda"
        fits = fused_kernels(x_BTD, weight_D1K) is not None
        return "torch" if not fits or cpp_conv_problem(x_BTD, taps, silu=silu) else "cpp"
    problem = ""
    if backend != "torch":
        problem = cpp_conv_problem(x_BTD, taps, silu=silu) if backend == "cpp" else cuda_conv_problem(x_BTD, taps)
    if problem:
        raise ConfigError(f"HYMBA_CONV_BACKEND: {backend} cannot compute this convolution: {problem}")
    return backend


def cpp_conv_problem(x_BTD: Tensor, taps: int, *, silu: bool) -> str:
    """Why the compiled convolution cannot serve, or an empty string."""
    if x_BTD.device.type != "cpu":
        return f"the tensors are on {x_BTD.device.type}, not on a CPU"
    if x_BTD.dtype != torch.float32 or not x_BTD.numel():
        return str(x_BTD.dtype).removeprefix("torch.") if x_BTD.numel() else "no elements"
    if taps not in FUSED_TAPS or not silu:
        return f"{taps} taps, it takes {FUSED_TAPS[0]} to {FUSED_TAPS[-1]}" if silu else "no SiLU follows"
    return native_library(FUSED_SOURCE)[1]


class CausalConv(torch.autograd.Function):
    """One multiply-add per tap on contiguous channels; no transposition to the layout of the library's convolution."""

    @staticmethod
    def forward(ctx: ConvContext, x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
        """Return y_BTD."""
        ctx.save_for_backward(x_BTD, weight_D1K)
        return convolved(x_BTD, weight_D1K, bias_D)

    @staticmethod
    def backward(ctx: ConvContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Correlate: every tap with its own shift."""
        dy_BTD, (x_BTD, weight_D1K) = grads[0], ctx.saved_tensors
        now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
        dx_BTD, dtaps = dy_BTD * now, [(dy_BTD * x_BTD).sum((0, 1))]
        for delay, tap_D in enumerate(earlier, 1):
            dx_BTD[:, :-delay].addcmul_(dy_BTD[:, delay:], tap_D)
            dtaps.append((dy_BTD[:, delay:] * x_BTD[:, :-delay]).sum((0, 1)))
        return dx_BTD, torch.stack(dtaps[::-1], 1)[:, None], dy_BTD.sum((0, 1))


def convolved(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
    """Compute the convolution: one multiply-add per tap."""
    now, *earlier = reversed(weight_D1K[:, 0].unbind(1))
    y_BTD = torch.addcmul(bias_D, x_BTD, now)
    for delay, tap_D in enumerate(earlier, 1):
        y_BTD[:, delay:].addcmul_(x_BTD[:, :-delay], tap_D)
    return y_BTD
