"""Mamba's causal depthwise convolution, in the layout that the projections around it use.

Shape letters: B batch, T time, D channels, K taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from reference_model.memory import Tail


class ConvContext(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]


class DepthwiseConv(nn.Module):
    """One filter per channel over this and the K - 1 earlier steps, zeros before the first.

    Same parameters as `torch.nn.Conv1d` with one group per channel; the last tap is the present step.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, width))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BTD: Tensor, tail: Tail | None = None) -> Tensor:
        """Return y_BTD in the type of the weights, whatever the surrounding autocast says; goes on after a tail."""
        x_BTD = x_BTD.to(self.weight.dtype)
        if tail is None:
            return causal_conv(x_BTD, self.weight, self.bias)
        reach = self.weight.shape[2] - 1
        return causal_conv(tail.join(x_BTD, reach), self.weight, self.bias)[:, reach:]


def causal_conv(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor) -> Tensor:
    """Convolve causally; all three of one type."""
    if not torch.is_grad_enabled():
        return convolved(x_BTD, weight_D1K, bias_D)
    y_BTD: Tensor = CausalConv.apply(x_BTD, weight_D1K, bias_D)  # type: ignore[no-untyped-call]  # untyped in torch
    return y_BTD


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
