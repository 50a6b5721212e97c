"""The fused kernels against PyTorch's operators in float64, forward and backward; and what they leave to those."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_model.attention import rotary_tables
from reference_model.backends import ELEMENTWISE_BACKENDS
from reference_model.config import config_settings
from reference_model.conv import causal_conv, choose_conv
from reference_model.elementwise import Elementwise, FusedElementwise, elementwise
from reference_model.fused import call_fused
from reference_model.memory import Tail
from reference_model.model import HymbaLM
from reference_model.native import native_library
from reference_model.settings import ConfigError
from tests.test_memory import random_tokens, small

compiled = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: nothing can be compiled")
Outputs: TypeAlias = Callable[[Elementwise, Sequence[Tensor]], Sequence[Tensor]]
PLAIN, FUSED = Elementwise(), FusedElementwise()
# Of the largest value, or of 1; and of the error of PyTorch's own operators in float32, where a norm is nearly zero.
TOLERANCE, AS_TORCH = 1e-5, 4.0


def draws(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes]


def assert_equal_to_float64(outputs: Outputs, leaves: Sequence[Tensor]) -> None:
    """Outputs and the gradients of every leaf."""
    results = []
    doubled = [leaf.detach().double().requires_grad_() for leaf in leaves]
    for how, inputs in ((FUSED, leaves), (PLAIN, leaves), (PLAIN, doubled)):
        found = outputs(how, inputs)
        generator = torch.Generator().manual_seed(9)
        loss = sum(((y * torch.randn(y.shape, generator=generator)).sum() for y in found), torch.zeros(()))
        results.append([*found, *torch.autograd.grad(loss, inputs)])
    for mine, torchs, exact in zip(*results, strict=True):
        assert mine.shape == exact.shape
        if not mine.numel():
            continue
        assert mine.dtype == torch.float32
        allowed = torch.maximum(
            TOLERANCE * exact.abs().max().clamp(min=1), AS_TORCH * (torchs.double() - exact).abs().max()
        )
        assert (mine - exact).abs().max() <= allowed


shapes = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(4, 40))


@compiled
@given(shape=shapes)
def test_norms_and_mixtures(shape: tuple[int, int, int]) -> None:
    channels = (shape[2],)
    x, u, a, b = draws(shape, shape, channels, channels)
    assert_equal_to_float64(lambda how, t: [how.norm(t[0])], [x])
    assert_equal_to_float64(lambda how, t: [how.mix(t[0], t[1], t[2])], [x, u, b])
    assert_equal_to_float64(lambda how, t: how.mix_norm(t[0], t[1], t[2]), [x, u, b])
    assert_equal_to_float64(lambda how, t: how.mix_norm(t[0], t[1], t[3], t[2]), [x, u, a, b])


@compiled
def test_an_output_that_nothing_uses_gives_no_gradient() -> None:
    x, u, b = draws((2, 9, 20), (2, 9, 20), (20,))
    assert_equal_to_float64(lambda how, t: how.mix_norm(t[0], t[1], t[2])[1:], [x, u, b])
    assert_equal_to_float64(lambda how, t: how.mix_norm(t[0], t[1], t[2])[:1], [x, u, b])


@compiled
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 4), st.integers(1, 20)),
    start=st.integers(0, 3),
    gained=st.booleans(),
)
def test_heads(shape: tuple[int, int, int, int], start: int, *, gained: bool) -> None:
    batch, length, heads, half = shape
    rotary = rotary_tables(length + 3, 2 * half, 100.0, torch.device("cpu"))
    wide, gain = draws((batch, length, heads, 2 * half + 5), (heads,))

    def turned(how: Elementwise, tensors: Sequence[Tensor]) -> list[Tensor]:
        # A slice, as a projection leaves it; the gradient comes back in the order of attention.
        x, tables = tensors[0][..., : 2 * half], (rotary[0].to(tensors[0].dtype), rotary[1].to(tensors[0].dtype))
        return [how.heads(x, tables, start, tensors[1] if gained else None).transpose(1, 2).contiguous()]

    assert_equal_to_float64(turned, [wide, gain] if gained else [wide])


@compiled
@given(size=st.integers(1, 40), slope=st.sampled_from([0.0, 0.5, 0.9]))
def test_the_squared_rectifier(size: int, slope: float) -> None:
    assert_equal_to_float64(lambda how, t: [how.squared_rectifier(t[0], slope)], draws((3, size)))


@compiled
@given(rows=st.integers(1, 70), vocabulary=st.integers(1, 70), scale=st.sampled_from([0.01, 1.0, 20.0]))
def test_the_capped_cross_entropy(rows: int, vocabulary: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(rows)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    z = (scale * torch.randn(rows, vocabulary, generator=generator)).requires_grad_()
    assert_equal_to_float64(lambda how, t: [how.capped_entropy(t[0], targets, 30.0)], [z])


@compiled
@given(shape=shapes, taps=st.integers(1, 4), kept=st.booleans())
def test_convolution_and_silu(shape: tuple[int, int, int], taps: int, *, kept: bool) -> None:
    before = (shape[0], taps - 1, shape[2])
    leaves = draws((shape[0], shape[1], shape[2] + 3), (shape[2], 1, taps), (shape[2],), before)

    def convolved(how: Elementwise, tensors: Sequence[Tensor]) -> list[Tensor]:
        x, weight, bias, *rest = tensors
        backend = "cpp" if how is FUSED else "torch"
        tail = Tail(rest[0]) if rest else None
        return [causal_conv(x[..., : shape[2]], weight, bias, tail, silu=True, backend=backend)]

    assert_equal_to_float64(convolved, leaves if kept else leaves[:3])


@compiled
def test_the_compiled_convolution_serves_or_says_why() -> None:
    x, weight, bias = draws((1, 4, 8), (8, 1, 4), (8,))
    assert choose_conv("auto", x, weight, silu=True) == "cpp"
    assert choose_conv("auto", x, weight, silu=False) == choose_conv("auto", x.double(), weight, silu=True) == "torch"
    with pytest.raises(ConfigError, match=r"^HYMBA_CONV_BACKEND: cpp cannot .*: no SiLU follows$"):
        causal_conv(x, weight, bias, backend="cpp")
    (wide,) = draws((8, 1, 5))
    with pytest.raises(ConfigError, match=r"5 taps, it takes 1 to 4$"):
        causal_conv(x, wide, bias, silu=True, backend="cpp")
    with pytest.raises(ConfigError, match=r"float64$"):
        causal_conv(x.double(), weight.double(), bias.double(), silu=True, backend="cpp")


@compiled
@pytest.mark.parametrize("preset", ["demo", "pr914", "mini1961", "pr852_records", "paper"])
def test_a_whole_model_gives_the_same_losses_and_gradients(preset: str) -> None:
    plain = small(preset)
    fused = replace(plain, scan_backend="auto", conv_backend="auto", elementwise_backend="auto")
    tokens, results = random_tokens(plain), []
    for config in (plain, fused):
        model = HymbaLM(config, torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        losses = model.token_losses(tokens[:, :-1], tokens[:, 1:])
        leaves = list(model.parameters())
        gradients = torch.autograd.grad(losses.mean(), leaves, allow_unused=True, materialize_grads=True)
        results.append([losses, *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@compiled
def test_what_the_kernels_cannot_serve_is_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_model.fused.call_fused", lambda *_: pytest.fail("a kernel was called"))
    x, b = (tensor.double() for tensor in draws((2, 3, 4), (4,)))
    rotary = rotary_tables(3, 2, 100.0, torch.device("cpu"))
    torch.testing.assert_close(FUSED.mix_norm(x, x, b), PLAIN.mix_norm(x, x, b))
    torch.testing.assert_close(FUSED.heads(x[:, :, None].float(), rotary), PLAIN.heads(x[:, :, None].float(), rotary))
    targets = torch.tensor([0, 3])
    for cap in (0.0, 1e3):
        both = (how.capped_entropy(x[0, :2], targets, cap) for how in (FUSED, PLAIN))
        torch.testing.assert_close(*both)
    half = x.bfloat16()
    assert torch.equal(FUSED.norm(half), PLAIN.norm(half))
    assert FUSED.squared_rectifier(x[:0].float(), 0.5).shape == (0, 3, 4)


def test_without_a_compiler_the_operators_serve_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    native_library.cache_clear()
    (x,) = draws((2, 3, 4))
    try:
        with pytest.warns(UserWarning, match=r"no compiled kernels: g\+\+ not found"):
            assert torch.equal(FUSED.norm(x), PLAIN.norm(x))
        with pytest.raises(ConfigError, match=r"HYMBA_CONV_BACKEND: cpp .*: g\+\+ not found"):
            causal_conv(x, x.new_ones(4, 1, 2), x.new_ones(4), silu=True, backend="cpp")
        with pytest.warns(UserWarning, match="no compiled kernels"), pytest.raises(RuntimeError, match="are gone"):
            call_fused("squared_forward", (x,), (x,))
    finally:
        native_library.cache_clear()


def test_the_setting_offers_the_backends_that_there_are() -> None:
    choices = {setting.name: setting.choices for _, _, setting, _ in config_settings()}
    assert set(choices["ELEMENTWISE_BACKEND"]) == set(ELEMENTWISE_BACKENDS)
    assert type(elementwise("torch")) is Elementwise
    assert type(elementwise("auto")) is FusedElementwise
