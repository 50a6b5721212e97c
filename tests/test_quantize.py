"""Rounding rows to integers: the error bound, stability, and refusal of what cannot be stored."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_model.config import QuantConfig
from reference_model.presets import PRESETS
from reference_model.quantize import (
    SMALLEST_SCALE,
    QuantizedTensor,
    QuantizeError,
    dequantize_rows,
    largest_level,
    quantize_rows,
    tensor_kind,
)

BITS = st.sampled_from([4, 6, 8])
FLOORS = st.sampled_from(["none", "published"])


@st.composite
def weights(draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of very different magnitudes, some with outliers, some zero, some constant."""
    shape = draw(st.sampled_from([(1, 1), (3, 1), (1, 17), (5, 8), (16, 64), (2, 3, 9)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight *= 10.0 ** draw(st.floats(-9, 5)) * 10.0 ** torch.randn(shape[:-1], generator=generator)[..., None].double()
    rows = weight.view(-1, shape[-1])
    for row, change in enumerate(draw(st.lists(st.sampled_from(["", "zero", "constant", "outlier"]), max_size=4))):
        if row < len(rows) and change:
            rows[row] = {"zero": 0.0 * rows[row], "constant": rows[row, :1], "outlier": rows[row]}[change]
            rows[row, 0] *= 30.0 if change == "outlier" else 1.0
    return weight.clamp(-4e5, 4e5).to(dtype)  # int4 reaches 7 * 65,504


def rounded(quantized: QuantizedTensor) -> Tensor:
    return quantized.values.double() * quantized.scale.double()[..., None]


@given(weights(), BITS, FLOORS)
def test_no_weight_is_off_by_more_than_half_of_the_stored_scale(weight: Tensor, bits: int, floor: str) -> None:
    quantized = quantize_rows(weight, bits, scale_floor=floor)
    error = (rounded(quantized) - weight.double()).abs()
    assert bool((error <= 0.5 * quantized.scale.double()[..., None] * (1 + 1e-12)).all())
    assert int(quantized.values.abs().max()) <= largest_level(bits)


@given(weights(), BITS, FLOORS, st.booleans())
def test_its_own_output_stays_as_it_is(weight: Tensor, bits: int, floor: str, search: bool) -> None:  # noqa: FBT001 - drawn
    first = quantize_rows(weight, bits, scale_floor=floor, clip_search=search)
    second = quantize_rows(dequantize_rows(first), bits, scale_floor=floor, clip_search=search)
    assert torch.equal(second.values, first.values)
    assert torch.equal(second.scale, first.scale)


@given(weights(), BITS, FLOORS)
def test_clip_search_never_increases_a_rows_squared_error(weight: Tensor, bits: int, floor: str) -> None:
    def errors(*, search: bool) -> Tensor:
        quantized = quantize_rows(weight, bits, scale_floor=floor, clip_search=search)
        return (rounded(quantized) - weight.double()).square().sum(-1)

    assert bool((errors(search=True) <= errors(search=False)).all())


def test_clip_search_cuts_an_outlier_that_costs_more_than_it_is_worth() -> None:
    weight = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 12.0
    plain, searched = quantize_rows(weight, 4), quantize_rows(weight, 4, clip_search=True)
    assert float(searched.scale) < 0.7 * float(plain.scale)
    errors = [(dequantize_rows(q) - weight).square().sum() for q in (plain, searched)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 5)])
def test_shape_and_dtype_are_kept(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape).to(dtype)
    quantized = quantize_rows(weight, 8)
    result = dequantize_rows(quantized)
    assert (result.shape, result.dtype) == (weight.shape, dtype)
    assert (quantized.values.dtype, quantized.scale.dtype, quantized.scale.shape) == (
        torch.int8,
        torch.float16,
        shape[:-1],
    )


def test_hand_computed_rows() -> None:
    # 7 levels: the first row's scale is 7/7 = 1, the second's 3.5/7 = 0.5; halves round to even.
    weight = torch.tensor([[7.0, -2.4, 0.5, 1.5], [3.5, -3.5, 0.2, 0.3]])
    quantized = quantize_rows(weight, 4)
    assert quantized.scale.tolist() == [1.0, 0.5]
    assert quantized.values.tolist() == [[7, -2, 0, 2], [7, -7, 0, 1]]


def test_the_scale_is_rounded_up_to_half_precision() -> None:
    exact = 1.0 + 2.0**-12  # between two float16 numbers
    quantized = quantize_rows(torch.tensor([[127.0 * exact]]), 8)
    assert float(quantized.scale) == 1.0 + 2.0**-10
    assert quantized.values.tolist() == [[127]]


def test_zero_and_constant_rows() -> None:
    quantized = quantize_rows(torch.tensor([[0.0, 0.0], [-3.1, -3.1]]), 6)
    assert quantized.values.tolist() == [[0, 0], [-31, -31]]
    assert float(quantized.scale[0]) == SMALLEST_SCALE
    assert dequantize_rows(quantized)[1, 0].item() == pytest.approx(-3.1, rel=2e-3)


def test_published_floor_leaves_small_rows_few_levels() -> None:
    weight = torch.tensor([[0.1, -0.04]])
    assert quantize_rows(weight, 6, scale_floor="published").values.tolist() == [[3, -1]]
    assert quantize_rows(weight, 6).values.tolist() == [[31, -12]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    weight = torch.ones(2, 3)
    weight[1, 2] = bad
    with pytest.raises(QuantizeError, match="1 of 6 weights are not finite"):
        quantize_rows(weight, 8)


@pytest.mark.parametrize("weight", [torch.ones(3), torch.ones(2, 2, dtype=torch.int32), torch.ones(3, 0)])
def test_what_has_no_rows_of_numbers_is_refused(weight: Tensor) -> None:
    with pytest.raises(QuantizeError, match="cannot quantize"):
        quantize_rows(weight, 8)


def test_a_row_beyond_half_precision_is_refused() -> None:
    assert bool(quantize_rows(torch.tensor([[65504.0 * 127]]), 8).scale.isfinite().all())
    with pytest.raises(QuantizeError, match="too large"):
        quantize_rows(torch.tensor([[65505.0 * 127]]), 8)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("blocks.0.mlp.fc.weight", (64, 65), "int6"),
        ("blocks.0.mlp.fc.weight", (64, 64), "float16"),
        ("blocks.0.q_gain", (8,), "float32"),
        ("blocks.0.merge_alpha", (), "float32"),
        ("blocks.0.resid_mix", (2, 4096), "float32"),
        ("blocks.1.mamba.A_log", (512, 16), "float32"),
        ("skip_weights", (1, 3, 4096), "float32"),
        ("long_vector", (5000,), "float32"),
    ],
)
def test_kinds_of_storage(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert tensor_kind(name, torch.zeros(shape), QuantConfig(bits=6, keep_float_max_numel=4096)) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("blocks.0.mlp.fc.weight", "int4"),
        ("banks.mlp_down", "int4"),
        ("blocks.0.attn.proj.weight", "int6"),
        ("banks.qo", "int6"),
        ("bigram_hash.proj.weight", "int6"),
        ("tok_emb.weight", "int8"),
        ("lm_head.weight", "int8"),
        ("bigram_hash.table.weight", "int8"),
    ],
)
def test_roles_have_bits_of_their_own(name: str, kind: str) -> None:
    mixed = QuantConfig(bits=6, mlp_bits=4, embed_bits=8, keep_float_max_numel=10)
    assert tensor_kind(name, torch.zeros(8, 8), mixed) == kind
    assert tensor_kind(name, torch.zeros(8, 8), QuantConfig(keep_float_max_numel=10)) == "int6"


def test_embeddings_stay_in_half_precision_where_the_published_scripts_keep_them() -> None:
    published = QuantConfig(fp16_embed=True, embed_bits=8, keep_float_max_numel=10)
    assert tensor_kind("tok_emb.weight", torch.zeros(8, 8), published) == "float16"
    assert tensor_kind("tok_emb.weight", torch.full((8, 8), 1e5), published) == "float32"
    assert tensor_kind("lm_head.weight", torch.zeros(8, 8), published) == "int8"
    assert {name for name, config in PRESETS.items() if config.quant.fp16_embed} == {"pr599", "pr914", "pr1245"}


def test_what_half_precision_cannot_hold_stays_single() -> None:
    assert tensor_kind("small.weight", torch.full((2, 2), 70_000.0), QuantConfig()) == "float32"
