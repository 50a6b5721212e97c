"""The depthwise convolution by every backend against the library's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model.config import ModelConfig
from reference_model.conv import DepthwiseConv, causal_conv
from reference_model.memory import Tail
from reference_model.settings import ConfigError
from tests.standins import install


def library_conv(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None) -> Tensor:
    if before is None:
        before = x.new_zeros(len(x), weight.shape[-1] - 1, x.shape[2])
    return F.conv1d(torch.cat((before, x), 1).transpose(1, 2), weight, bias, groups=len(weight)).transpose(1, 2)


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@given(batch=st.integers(1, 3), length=st.integers(1, 12), channels=st.integers(1, 4), width=st.integers(1, 6))
def test_values_and_gradients_equal_the_library(batch: int, length: int, channels: int, width: int) -> None:
    shapes = ((batch, length, channels), (channels, 1, width), (channels,), (batch, width - 1, channels))
    x, weight, bias, before = inputs = leaves(*shapes)
    ours, theirs = causal_conv(x, weight, bias, Tail(before), silu=True), F.silu(library_conv(x, weight, bias, before))
    results = [(y, *torch.autograd.grad((y * y.detach().sin()).sum(), inputs)) for y in (ours, theirs)]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@given(
    batch=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    channels=st.sampled_from([8, 16, 24]),
    width=st.integers(2, 4),
    silu=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_stand_in_of_causal_conv1d_agrees(
    monkeypatch: pytest.MonkeyPatch, batch: int, lengths: list[int], channels: int, width: int, *, silu: bool
) -> None:
    called = install(monkeypatch)
    shapes = ((batch, sum(lengths), 2 * channels), (channels, 1, width), (channels,), (batch, width - 1, channels))
    wide, weight, bias, before = leaves(*shapes, dtype=torch.float32)
    # A slice of wider rows, as a projection leaves it.
    x, tail = wide[..., :channels], Tail(before)
    parts = [causal_conv(part, weight, bias, tail, silu=silu, backend="cuda") for part in torch.split(x, lengths, 1)]
    expected = library_conv(x.double(), weight.double(), bias.double(), before.double())
    expected = F.silu(expected) if silu else expected
    inputs = (wide, weight, bias, before)
    results: list[tuple[Tensor, ...]] = [(torch.cat(parts, 1),), (expected,)]
    # What a tail remembers takes no gradient.
    if len(lengths) == 1:
        results = [(*y, *torch.autograd.grad((y[0] * y[0].detach().sin()).sum(), inputs)) for y in results]
    for found, exact in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), exact.double(), rtol=1e-5, atol=1e-5)
    assert called == ["causal_conv1d_fn"] * len(lengths)
    assert tail.items is not None
    assert torch.equal(tail.items, torch.cat((before, x), 1)[:, -(width - 1) :])


def test_auto_takes_the_gpu_kernel_only_where_it_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = leaves((2, 5, 8), (8, 1, 4), (8,), dtype=torch.float32)
    plain = causal_conv(x, weight, bias)
    called = install(monkeypatch)
    torch.testing.assert_close(causal_conv(x, weight, bias, backend="auto"), plain)
    assert called == ["causal_conv1d_fn"]
    causal_conv(x[..., :7], weight[:7], bias[:7], backend="auto")
    causal_conv(x, weight[..., :1], bias, backend="auto")
    assert len(called) == 1


@pytest.mark.parametrize(
    ("shape", "width", "dtype", "reason"),
    [
        ((1, 3, 8), 5, torch.float32, "5 taps, it takes 2 to 4"),
        ((1, 3, 12), 4, torch.float32, "12 channels, no multiple of 8"),
        ((1, 3, 8), 4, torch.float64, "float64"),
    ],
)
def test_a_kernel_that_cannot_serve_says_why(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], width: int, dtype: torch.dtype, reason: str
) -> None:
    x, weight, bias = leaves(shape, (shape[2], 1, width), (shape[2],), dtype=dtype)
    with pytest.raises(ConfigError, match=r"^HYMBA_CONV_BACKEND: cuda cannot .* the tensors are on cpu, not on a GPU"):
        causal_conv(x, weight, bias, backend="cuda")
    install(monkeypatch)
    with pytest.raises(ConfigError, match=f"^HYMBA_CONV_BACKEND: cuda cannot compute this convolution: {reason}$"):
        causal_conv(x, weight, bias, backend="cuda")


def test_a_backend_that_there_is_not_is_refused() -> None:
    assert ModelConfig().conv_backend == "torch"
    x, weight, bias = leaves((1, 2, 8), (8, 1, 4), (8,))
    with pytest.raises(ConfigError, match="'abacus' is not one of"):
        causal_conv(x, weight, bias, backend="abacus")


def test_by_hand() -> None:
    # Width 2, taps (3, 5): y[t] = 3 * x[t-1] + 5 * x[t] + 1.
    convolution = DepthwiseConv(1, 2)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[[3.0, 5.0]]]))
        convolution.bias.fill_(1.0)
    y = convolution(torch.tensor([[[1.0], [2.0], [-1.0]]]))
    assert y.flatten().tolist() == [6.0, 14.0, 2.0]
