"""The depthwise convolution against the library's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_model.conv import DepthwiseConv, causal_conv


def library_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    padded = F.pad(x.transpose(1, 2), (weight.shape[-1] - 1, 0))
    return F.conv1d(padded, weight, bias, groups=len(weight)).transpose(1, 2)


@given(batch=st.integers(1, 3), length=st.integers(1, 12), channels=st.integers(1, 4), width=st.integers(1, 6))
def test_values_and_gradients_equal_the_library(batch: int, length: int, channels: int, width: int) -> None:
    generator = torch.Generator().manual_seed(length)
    inputs = tuple(
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((batch, length, channels), (channels, 1, width), (channels,))
    )
    results = []
    for function in (causal_conv, library_conv):
        y = function(*inputs)
        results.append((y, *torch.autograd.grad((y * y.detach().sin()).sum(), inputs)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_by_hand() -> None:
    # Width 2, taps (3, 5): y[t] = 3 * x[t-1] + 5 * x[t] + 1.
    convolution = DepthwiseConv(1, 2)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[[3.0, 5.0]]]))
        convolution.bias.fill_(1.0)
    y = convolution(torch.tensor([[[1.0], [2.0], [-1.0]]]))
    assert y.flatten().tolist() == [6.0, 14.0, 2.0]
