"""Rounding for the inputs: less error than to nearest, never more in any row, and nothing strange on strange inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model.gptq import Rounding, inverse_factor, output_error, round_with_hessian
from reference_model.quantize import QuantizedTensor, QuantizeError, dequantize_rows, largest_level, quantize_rows

BITS = st.sampled_from([4, 6, 8])


def correlated_inputs(tokens: int, columns: int, seed: int = 0) -> Tensor:
    """Inputs of a few directions and a little noise, some channels much larger than others: as activations are."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(tokens, max(columns // 8, 1), generator=generator)
    mixed = directions @ torch.randn(directions.shape[1], columns, generator=generator)
    scale = torch.exp(torch.randn(columns, generator=generator))
    return (mixed + 0.3 * torch.randn(tokens, columns, generator=generator)) * scale


def rounded(weight: Tensor, inputs: Tensor, bits: int, how: Rounding | None = None) -> tuple[Tensor, Tensor]:
    """Squared errors of the outputs by row, with inputs known and to nearest."""
    nearest = quantize_rows(weight, bits)
    found = round_with_hessian(weight, nearest, inputs.T @ inputs, how or Rounding())
    assert int(found.values.abs().max()) <= largest_level(bits)
    assert torch.equal(found.scale, nearest.scale)
    truth = inputs.double() @ weight.double().T
    first, second = (
        (inputs.double() @ dequantize_rows(one).double().T - truth).square().sum(0) for one in (found, nearest)
    )
    return first, second


@pytest.mark.parametrize("how", [Rounding(), Rounding(activity_order=False), Rounding(damping=1e-4)])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_correlated_inputs_lose_much_less_in_every_row(bits: int, how: Rounding) -> None:
    weight = torch.randn(48, 200, generator=torch.Generator().manual_seed(1))  # more than one block of columns
    known, nearest = rounded(weight, correlated_inputs(1000, 200), bits, how)
    assert bool((known < nearest).all())
    assert float(known.sum()) < 0.4 * float(nearest.sum())


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 12), st.integers(1, 60), BITS, st.booleans())
@settings(max_examples=60)
def test_no_row_ever_loses_more_than_to_nearest(
    seed: int,
    columns: int,
    rows: int,
    tokens: int,
    bits: int,
    order: bool,  # noqa: FBT001 - drawn
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, inputs = torch.randn(rows, columns, generator=generator), correlated_inputs(tokens, columns, seed)
    known, nearest = rounded(weight, inputs, bits, Rounding(activity_order=order))
    # Sums in another order.
    assert bool((known <= nearest * (1 + 1e-4) + 1e-9).all())


def test_inputs_that_know_nothing_of_each_other_change_nothing() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(2))
    nearest = quantize_rows(weight, 4)
    for hessian in (torch.eye(32), torch.diag(torch.rand(32) + 0.1), torch.zeros(32, 32)):
        assert torch.equal(round_with_hessian(weight, nearest, hessian, Rounding()).values, nearest.values)


def test_inputs_that_are_always_zero_keep_their_column_to_nearest() -> None:
    weight, inputs = torch.randn(16, 24, generator=torch.Generator().manual_seed(3)), correlated_inputs(300, 24)
    inputs[:, [0, 7, 23]] = 0.0
    nearest = quantize_rows(weight, 4)
    found = round_with_hessian(weight, nearest, inputs.T @ inputs, Rounding())
    assert torch.equal(found.values[:, [0, 7, 23]], nearest.values[:, [0, 7, 23]])
    assert not torch.equal(found.values, nearest.values)


@pytest.mark.parametrize("damping", [1e-9, 0.01])
def test_one_sample_is_enough(damping: float) -> None:
    weight, inputs = torch.randn(16, 64, generator=torch.Generator().manual_seed(4)), correlated_inputs(1, 64)
    known, nearest = rounded(weight, inputs, 4, Rounding(damping))
    assert float(known.sum()) < 0.2 * float(nearest.sum())


def test_it_is_the_same_every_time() -> None:
    weight, inputs = torch.randn(16, 64, generator=torch.Generator().manual_seed(5)), correlated_inputs(100, 64)
    nearest, hessian = quantize_rows(weight, 4), inputs.T @ inputs
    before = [nearest.values.clone(), hessian.clone(), weight.clone()]
    first, second = (round_with_hessian(weight, nearest, hessian, Rounding()).values for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(*pair) for pair in zip(before, [nearest.values, hessian, weight], strict=True))


def test_two_columns_by_hand() -> None:
    # Inputs are equal in both columns: what the first rounds away, the second gives back.
    weight = torch.tensor([[7.0, 0.4, 0.4]])
    nearest = QuantizedTensor(torch.tensor([[7, 0, 0]], dtype=torch.int8), torch.ones(1).half(), 4, torch.float32)
    inputs = torch.tensor([[0.0, 1.0, 1.0]])
    found = round_with_hessian(weight, nearest, inputs.T @ inputs, Rounding(damping=1e-6))
    assert found.values.tolist() == [[7, 0, 1]]
    assert output_error(weight, found.values.float(), inputs.T @ inputs).item() == pytest.approx(0.04)


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    inputs = correlated_inputs(100, 20).double()
    hessian = inputs.T @ inputs
    factor = inverse_factor(hessian, 0.01)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(20).double()
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(20).double(), atol=1e-8)


def test_damping_grows_until_it_is_enough_or_gives_up() -> None:
    # Slightly negative, as sums in single precision can be.
    nearly = torch.diag(torch.tensor([1.0, 1.0, 1.0])).double()
    nearly[0, 1] = nearly[1, 0] = 1.0 + 1e-5
    assert bool(inverse_factor(nearly, 1e-9).isfinite().all())
    with pytest.raises(QuantizeError, match="no positive semidefinite matrix"):
        inverse_factor(torch.tensor([[1.0, 5e9], [5e9, 1.0]]).double(), 0.01)


def test_inputs_that_are_not_finite_are_refused() -> None:
    weight = torch.ones(2, 2)
    with pytest.raises(QuantizeError, match="inputs that are not finite"):
        round_with_hessian(weight, quantize_rows(weight, 4), torch.full((2, 2), torch.nan), Rounding())
