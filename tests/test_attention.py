"""Window attention against a dense mask, rotary positions against rotations computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_model.attention import (
    attention_after_meta,
    blockwise_attention,
    causal_attention,
    normalized_heads,
    rotary_tables,
    rotate,
)
from reference_model.window import BLOCK_TOKENS, calls

Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def heads(length: int, *, kv_heads: int = 2, seed: int = 0, before: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(2, count, steps, 4, dtype=torch.float64, generator=generator)
        for count, steps in ((4, length), (kv_heads, before + length), (kv_heads, before + length))
    )
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def dense(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Softmax over an explicit matrix of scores; no library attention in it."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    before = k.shape[2] - q.shape[2]
    distance = torch.arange(q.shape[2])[:, None] - torch.arange(-before, q.shape[2])
    hidden = (distance < 0) | (distance >= (window or q.shape[2]))
    hidden[:, :before] = False
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v


def blockwise(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The path of other devices, run here on the CPU; without a window it is not reached."""
    return blockwise_attention(q, k, v, window or q.shape[2])


@pytest.mark.parametrize("ours", [causal_attention, blockwise])
@given(length=st.integers(1, 700), window=st.integers(0, 600), kv_heads=st.sampled_from([1, 2, 4]))
def test_forward_and_backward_equal_a_dense_mask(ours: Attention, length: int, window: int, kv_heads: int) -> None:
    inputs = heads(length, kv_heads=kv_heads)
    results = []
    for attention in (ours, dense):
        mixed = attention(*inputs, window)
        results.append((mixed, *torch.autograd.grad((mixed * mixed.detach().cos()).sum(), inputs)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("ours", [causal_attention, blockwise])
@pytest.mark.parametrize(("before", "window", "length"), [(1, 5, 40), (3, 128, 129), (130, 50, 300), (256, 300, 1300)])
def test_keys_before_the_first_query_are_always_visible(ours: Attention, before: int, window: int, length: int) -> None:
    inputs = heads(length, before=before)
    results = []
    for attention in (ours, dense):
        mixed = attention(*inputs, window)
        results.append((mixed, *torch.autograd.grad((mixed * mixed.detach().cos()).sum(), inputs)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_keys_before_the_first_query_without_a_window() -> None:
    q, k, v = heads(20, before=3)
    torch.testing.assert_close(causal_attention(q, k, v), dense(q, k, v, 0))


@pytest.mark.parametrize(("meta", "window", "length"), [(3, 0, 20), (3, 40, 20), (5, 4, 150), (130, 20, 150)])
def test_meta_tokens_have_queries_of_their_own_and_stay_visible(meta: int, window: int, length: int) -> None:
    q, k, v = heads(meta + length)
    found = attention_after_meta(q, k, v, window=window, meta=meta)
    torch.testing.assert_close(found[:, :, :meta], dense(q[:, :, :meta], k[:, :, :meta], v[:, :, :meta], 0))
    torch.testing.assert_close(found[:, :, meta:], dense(q[:, :, meta:], k, v, window))


def test_tables_for_less_than_a_head_rotate_its_first_channels_only() -> None:
    x = torch.randn(1, 7, 2, 8, generator=torch.Generator().manual_seed(5))
    part, device = rotary_tables(7, 4, 10_000.0, torch.device("cpu")), torch.device("cpu")
    turned = normalized_heads(x, part)
    normed = F.rms_norm(x, (8,))
    torch.testing.assert_close(turned[..., 4:], normed[..., 4:])
    torch.testing.assert_close(turned[..., :4], rotate(normed[..., :4], *part))
    later = normalized_heads(x[:, 3:], rotary_tables(20, 4, 10_000.0, device), start=3)
    torch.testing.assert_close(later, turned[:, 3:])


@pytest.mark.parametrize(("window", "length"), [(1, 300), (2, 257), (256, 600), (257, 600), (300, 1000)])
def test_a_query_depends_on_the_window_and_nothing_else(window: int, length: int) -> None:
    q, k, v = heads(length)
    position = length - 1
    (gradient,) = torch.autograd.grad(causal_attention(q, k, v, window)[:, :, position].sum(), v)
    seen = (gradient.abs().sum((0, 1, 3)) > 0).nonzero().flatten().tolist()
    assert seen == list(range(position - window + 1, position + 1))


def test_a_window_of_one_returns_the_values() -> None:
    q, k, v = heads(520, kv_heads=4)
    torch.testing.assert_close(causal_attention(q, k, v, 1), v)


def test_rotation_of_one_pair_by_hand() -> None:
    # One head of width 2 has one frequency, 1: position t turns by t radians; the norm makes (3, 4) into (3, 4) / rms.
    rotary = rotary_tables(3, 2, 10_000.0, torch.device("cpu"))
    x = torch.tensor([3.0, 4.0]).expand(1, 3, 1, 2)
    turned = normalized_heads(x, rotary)
    rms = math.sqrt((9 + 16) / 2)
    for t in range(3):
        expected = [(3 * math.cos(t) - 4 * math.sin(t)) / rms, (4 * math.cos(t) + 3 * math.sin(t)) / rms]
        assert turned[0, t, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_scores_depend_on_relative_position_only() -> None:
    rotary = rotary_tables(64, 16, 10_000.0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(16, generator=generator).expand(1, 64, 1, 16) for _ in range(2))
    scores = normalized_heads(q, rotary)[0, :, 0] @ normalized_heads(k, rotary)[0, :, 0].T
    for offset in (0, 1, 7):
        diagonal = scores.diagonal(-offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(scores.diagonal(0)[:32], scores.diagonal(-7)[:32], atol=1e-2)


def test_normalized_heads_have_unit_mean_square_and_keep_their_type() -> None:
    rotary = rotary_tables(5, 8, 10_000.0, torch.device("cpu"))
    x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(2)) * 40
    norms = normalized_heads(x, rotary).square().mean(-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert normalized_heads(x.bfloat16(), rotary).dtype == torch.bfloat16


def test_plain_causal_attention_is_the_library_function() -> None:
    q, k, v = heads(50, kv_heads=4)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(causal_attention(q, k, v, 0), expected)
    torch.testing.assert_close(causal_attention(q, k, v, 50), expected)


@pytest.mark.parametrize(("length", "window"), [(128, 2), (640, 129), (2_304, 512), (4_096, 300)])
def test_calls_cover_every_query_once_and_every_visible_key(length: int, window: int) -> None:
    covered = list(calls(length, window))
    assert [p for call in covered for p in range(length)[call.queries]] == list(range(length))
    for call in covered:
        assert call.keys.start <= max(0, call.queries.start - window + 1)
        assert [call.key_part(number).start for number in range(call.reach)] == [
            call.keys.start + number * BLOCK_TOKENS for number in range(call.reach)
        ]


def test_the_backward_pass_may_start_from_any_memory_order() -> None:
    q, k, v = heads(300, kv_heads=2)
    mixed, expected = causal_attention(q, k, v, 100), dense(q, k, v, 100)
    weight = torch.randn(300, 4, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for found, wanted in zip(
        torch.autograd.grad(mixed, (q, k, v), weight.permute(2, 1, 0, 3)),
        torch.autograd.grad(expected, (q, k, v), weight.permute(2, 1, 0, 3)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)
