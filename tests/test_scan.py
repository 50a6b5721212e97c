"""The chunked scan against float64 steps, a case by hand, and numerical derivatives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_model.scan import ScanInputs, selective_scan, selective_scan_reference


def scan_inputs(
    shape: tuple[int, int, int, int], *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[ScanInputs, Tensor]:
    """Random inputs with Mamba's initial A, and a random initial state; B, T, D, N."""
    batch, time, channels, state = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=dtype)

    inputs = ScanInputs(
        draw(batch, time, channels),
        F.softplus(draw(batch, time, channels) - 1),
        -torch.arange(1, state + 1, dtype=dtype).repeat(channels, 1),
        draw(batch, time, state),
        draw(batch, time, state),
    )
    leaves = ScanInputs(*(tensor.requires_grad_() for tensor in inputs))
    return leaves, draw(batch, channels, state).requires_grad_()


def outputs_and_gradients(y: Tensor, state: Tensor, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64) for out in (y, state)]
    loss = (y * weights[0]).sum() + (state * weights[1]).sum()
    return [y, state, *torch.autograd.grad(loss, leaves)]


shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))


@given(shape=shapes, chunk=st.integers(1, 45))
def test_any_chunking_equals_single_steps(shape: tuple[int, int, int, int], chunk: int) -> None:
    inputs, state = scan_inputs(shape)
    ours = outputs_and_gradients(*selective_scan(inputs, state, chunk=chunk), (*inputs, state))
    expected = outputs_and_gradients(*selective_scan_reference(inputs, state), (*inputs, state))
    for mine, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


@given(shape=shapes, chunk=st.integers(1, 20), data=st.data())
def test_handing_over_the_state_equals_one_scan(
    shape: tuple[int, int, int, int], chunk: int, data: st.DataObject
) -> None:
    inputs, state = scan_inputs(shape)
    cuts = sorted(data.draw(st.sets(st.integers(1, shape[1]), max_size=4)) | {shape[1]})
    pieces, carried, start = [], state, 0
    for end in cuts:
        x, dt, rates, b, c = inputs
        piece = ScanInputs(x[:, start:end], dt[:, start:end], rates, b[:, start:end], c[:, start:end])
        y, carried = selective_scan(piece, carried, chunk=chunk)
        pieces.append(y)
        start = end
    split = outputs_and_gradients(torch.cat(pieces, 1), carried, (*inputs, state))
    whole = outputs_and_gradients(*selective_scan(inputs, state, chunk=chunk), (*inputs, state))
    for mine, reference in zip(split, whole, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_derivatives_equal_finite_differences(chunk: int) -> None:
    inputs, state = scan_inputs((2, 5, 3, 2))

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return selective_scan(ScanInputs(*tensors[:5]), tensors[5], chunk=chunk)

    assert torch.autograd.gradcheck(scan, (*inputs, state))


def test_two_steps_by_hand() -> None:
    # One channel, one state: h1 = 0.5*2*3 = 3, y1 = 4*3 = 12; h2 = e^-1 * 3 + 1*1*(-1), y2 = 2*h2.
    inputs = ScanInputs(
        x_BTD=torch.tensor([[[2.0], [1.0]]]),
        dt_BTD=torch.tensor([[[0.5], [1.0]]]),
        A_DN=torch.tensor([[-1.0]]),
        B_BTN=torch.tensor([[[3.0], [-1.0]]]),
        C_BTN=torch.tensor([[[4.0], [2.0]]]),
    )
    y, state = selective_scan(inputs)
    second = 3 * math.exp(-1) - 1
    assert y.flatten().tolist() == pytest.approx([12.0, 2 * second])
    assert state.item() == pytest.approx(second)


def test_float32_stays_close_to_float64_over_a_long_sequence() -> None:
    inputs, state = scan_inputs((1, 1500, 6, 4), dtype=torch.float32)
    ours = outputs_and_gradients(*selective_scan(inputs, state), (*inputs, state))
    expected = outputs_and_gradients(*selective_scan_reference(inputs, state), (*inputs, state))
    for mine, reference in zip(ours, expected, strict=True):
        assert torch.isfinite(mine).all()
        assert (mine - reference).norm() / reference.norm() < 1e-6


def test_very_large_steps_forget_and_stay_finite() -> None:
    inputs, state = scan_inputs((1, 20, 2, 3))
    huge = inputs._replace(dt_BTD=torch.full_like(inputs.dt_BTD, 1e6).requires_grad_())
    results = outputs_and_gradients(*selective_scan(huge, state, chunk=7), (*huge, state))
    assert all(torch.isfinite(result).all() for result in results)
    assert results[-1].abs().max().item() == 0


def test_autocast_does_not_lower_the_precision() -> None:
    inputs, _ = scan_inputs((2, 30, 8, 4), dtype=torch.float32)
    y, _ = selective_scan(inputs)
    plain = torch.autograd.grad(y.sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_under_autocast, _ = selective_scan(inputs)
        under_autocast = torch.autograd.grad(y_under_autocast.sum(), inputs)
    assert torch.equal(y, y_under_autocast)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain, under_autocast, strict=True))


def test_low_precision_inputs_get_gradients_of_their_own_type() -> None:
    inputs, _ = scan_inputs((1, 9, 4, 2), dtype=torch.float32)
    low = ScanInputs(*(tensor.detach().bfloat16().requires_grad_() for tensor in inputs))
    y, state = selective_scan(low)
    gradients = torch.autograd.grad(y.sum() + state.sum(), low)
    assert y.dtype == state.dtype == torch.float32
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}


def test_noncontiguous_inputs_give_the_same_result() -> None:
    inputs, state = scan_inputs((2, 11, 3, 2))
    strided = ScanInputs(*(tensor.mT.contiguous().mT for tensor in inputs))
    assert torch.equal(selective_scan(strided, state)[0], selective_scan(inputs, state)[0])
