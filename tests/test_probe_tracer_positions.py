"""Places of tokens by their content: never a wrong one."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import RATIO_LIMIT, growth
from tests.tracing import VOCABULARY, unlike

positions = importlib.import_module("harness.probe.child.tracer.positions")
TEXT = unlike(2_000)
SHARD = positions.Shard(TEXT)
WHOLE = torch.from_numpy(TEXT.astype(np.int64))


def windows(*begins: int, length: int = 24) -> torch.Tensor:
    return torch.stack([WHOLE[begin : begin + length] for begin in begins])


def test_rows_of_a_batch_are_found_wherever_they_begin() -> None:
    begins = [0, 500, 12, 1_976, 24]
    assert (SHARD.of(windows(*begins)) == np.array(begins)[:, None] + np.arange(24)).all()


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16", "int16"])
def test_the_type_of_the_numbers_does_not_matter(dtype: str) -> None:
    assert (SHARD.of(windows(7).to(getattr(torch, dtype)))[0] == np.arange(7, 31)).all()


def test_slices_of_one_and_two_tokens_are_read_by_what_they_are_part_of() -> None:
    window = windows(100)[0].clone()
    assert SHARD.of(window[5:6]).tolist() == [105]
    assert SHARD.of(window[None, 1:3]).tolist() == [[101, 102]]
    assert SHARD.of(window[22:]).tolist() == [122, 123]
    # Alone they say nothing.
    assert SHARD.of(window[22:].clone()).tolist() == [-1, -1]


def test_columns_and_strides_of_a_batch() -> None:
    batch = windows(10, 600, 300)
    assert SHARD.of(batch[:, 3:5]).tolist() == [[13, 14], [603, 604], [303, 304]]
    assert SHARD.of(batch.t()[2]).tolist() == [12, 602, 302]
    assert SHARD.of(batch[:, 1:, None]).shape == (3, 23, 1)
    assert SHARD.of(batch[:, :1].expand(3, 4))[1].tolist() == [600] * 4


@pytest.mark.parametrize("filler", [0, -100, 1])
def test_padding_is_unknown(filler: int) -> None:
    rows = torch.full((2, 24), filler)
    rows[0, :9], rows[1, :20] = WHOLE[40:49], WHOLE[70:90]
    found = SHARD.of(rows)
    assert found[0, :9].tolist() == list(range(40, 49))
    assert (found[0, 10:] == -1).all()
    assert found[1, :20].tolist() == list(range(70, 90))


def test_windows_that_wrap_around_the_end() -> None:
    wrapped = torch.cat([WHOLE[-20:], WHOLE[:30]])
    assert SHARD.of(wrapped).tolist() == [*range(1_980, 2_000), *range(30)]


def test_other_text_is_unknown_even_where_a_piece_agrees() -> None:
    other = np.random.default_rng(9).integers(8, VOCABULARY, (8, 64))
    other[2, 10:16] = TEXT[900:906]
    assert (SHARD.decode(other) == -1).all()


def test_repeated_text_takes_its_place_from_its_neighbours() -> None:
    text = np.tile(unlike(100, seed=3), 2)
    text[150] = 7
    shard = positions.Shard(text)
    assert 0 < shard.unique < 1
    assert shard.decode(text[140:170]).tolist() == list(range(140, 170))
    # What stands twice is nowhere.
    assert (shard.decode(text[5:45]) == -1).all()


def test_what_two_windows_claim_is_unknown() -> None:
    text = TEXT.astype(np.int64).copy()
    text[128] = text[96]
    shard = positions.Shard(text)
    rows = np.stack([text[begin : begin + 64] for begin in (65, 97)])
    flat = shard.decode(rows.reshape(-1))
    right = np.concatenate([np.arange(65, 129), np.arange(97, 161)])
    assert ((flat == right) | (flat == -1)).all()
    assert (flat == right).sum() >= right.size - 2
    assert (shard.decode(rows).reshape(-1) == right).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1_900), st.integers(1, 60), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 2**32),
)
def test_never_a_wrong_place(parts: list[tuple[int, int, bool]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces, right = [], []
    for begin, length, ours in parts:
        pieces.append(TEXT[begin : begin + length] if ours else rng.integers(8, VOCABULARY, length))
        right.append(np.arange(begin, begin + length) if ours else np.full(length, -1))
    values = np.concatenate(pieces).astype(np.int64)
    found, truth = SHARD.decode(values), np.concatenate(right)[: values.size]
    wrong = (found >= 0) & (TEXT[np.maximum(found, 0)] != values)
    assert not wrong.any()
    long = np.concatenate([np.full(min(length, 1_900), ours and length >= 16) for _, length, ours in parts])
    assert (found[long & (truth >= 0)] == truth[long & (truth >= 0)]).mean() > 0.9 if long.any() else True


def test_ranges() -> None:
    assert positions.ranges(np.array([3, 1, 2, 9, 9])) == [[1, 4], [9, 10]]
    assert positions.ranges(np.array([1, 2, 2, 3]), again=True) == [[1, 3], [2, 4]]
    assert positions.ranges(np.zeros(0, dtype=np.int64)) == []


def test_the_cost_of_a_batch_grows_with_its_rows() -> None:
    shard = positions.Shard(unlike(20_000, seed=4, every=97))
    batch = np.stack([shard.tokens[begin : begin + 64] for begin in range(0, 19_000, 32)])
    assert growth(lambda: shard.decode(batch[::4]), lambda: shard.decode(batch)) < RATIO_LIMIT
    assert (shard.decode(batch) == np.arange(0, 19_000, 32)[:, None] + np.arange(64)).all()


def test_a_phrase_that_repeats_is_placed_by_what_stands_between() -> None:
    rng = np.random.default_rng(4)
    phrase = rng.integers(8, 500, 10)
    text = np.concatenate([part for _ in range(20) for part in (phrase, rng.integers(8, 500, 4))])
    found = positions.Shard(text)
    assert found.decode(text[5:75]).tolist() == list(range(5, 75))
    assert found.decode(text[16:24]).tolist() == [-1] * 8
