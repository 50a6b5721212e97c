"""The text whose phrases repeat, and the flips that are chosen in it."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from harness.challenge import BOS_TOKEN
from harness.probe import miniature, sizes
from harness.probe.experiments import variants
from harness.probe.phrased import BEGINS, BYTE, INSIDE, Phrased, phrased_text


@pytest.fixture(scope="module")
def text() -> Phrased:
    return phrased_text(1_700, 1024, 3)


def test_phrases_repeat_and_every_longer_piece_tells_its_place(text: Phrased) -> None:
    tokens = text.tokens.tolist()
    assert len(tokens) == 1_700
    assert tokens[:2] == [BOS_TOKEN, 1023]
    assert len(text.hits) > 300
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    once = [trigrams.count(each) == 1 for each in trigrams]
    assert all(any(once[start : start + 16]) for start in range(len(once) - 16))
    assert sum(not each for each in once) > 400
    for place in text.hits:
        assert tokens[: place - 1].count(tokens[place]) >= 1


def test_flips_lie_where_leaks_live(text: Phrased) -> None:
    chosen = {each.name: each for each in variants.choose(text, 0, damage=True)}
    places = [each.place for each in chosen.values() if each.place >= 0]
    assert sum(place % 64 == 1 for place in places) >= 2
    assert any(place % 64 == 0 for place in places)
    assert any(text.tokens[place - 1] == BOS_TOKEN for place in places)
    assert any(text.tokens[place + 1] == BOS_TOKEN for place in places)
    assert sum(place in text.hits for place in places) >= 2
    assert all(text.tokens[place] != BOS_TOKEN for place in places)
    told = variants.order(tuple(chosen.values()), "work/final.ptz", 60, reading=True)
    assert (told["artifact"], told["when"], told["variants"][0]) == (r"final\.ptz", "read", {"name": "nothing"})
    for each in told["variants"]:
        if "flip" in each:
            assert each["token"] != text.tokens[each["flip"]]
            assert text.first <= each["token"] < 1024
    assert len(variants.choose(text, 0, damage=False)) == len(chosen) - 2


def test_a_flip_crosses_the_beginnings_of_words(text: Phrased) -> None:
    kinds = (np.arange(1024) % 3).astype(np.int8)
    crossing = dataclasses.replace(text, kinds=kinds)
    for place in range(2, 60):
        old = text.tokens[place]
        token = crossing.other(place, 0)
        assert (kinds[token] == BEGINS) != (kinds[old] == BEGINS)
        assert text.first <= token < text.vocabulary
        assert [kinds[crossing.other(place, 0, kind)] for kind in (INSIDE, BEGINS, BYTE)] == [INSIDE, BEGINS, BYTE]
        assert old not in {text.other(place, 0), *(crossing.other(place, 0, kind) for kind in (INSIDE, BEGINS, BYTE))}
    alike = dataclasses.replace(text, kinds=np.zeros(1024, dtype=np.int8))
    assert alike.other(9, 0, BYTE) != text.tokens[9]
    names = [each.name for each in variants.choose(crossing, 0, damage=False)]
    hit = text.near(0.2, hit=True)
    assert {f"self-{hit}", f"self-{hit}-byte"} <= set(names)
    assert len(names) == len(variants.choose(text, 0, damage=False)) + 1


def test_flips_lie_where_longer_windows_begin(text: Phrased) -> None:
    longer = dataclasses.replace(text, length=128)
    places = [each.place for each in variants.choose(longer, 0, damage=False) if each.kind == "self"]
    assert {0, 1} <= {place % 128 for place in places}
    assert 0.3 < longer.near(0.2, hit=True) % 128 / 128 < 0.7
    assert miniature.choose("", {}, sizes.LONGER).length == 128


@pytest.mark.parametrize(("count", "vocabulary"), [(30, 64), (70, 256), (200, 8192)])
def test_short_texts_and_other_vocabularies(count: int, vocabulary: int) -> None:
    made = phrased_text(count, vocabulary, 0)
    assert made.tokens.size == count
    assert int(np.max(made.tokens)) < vocabulary
    assert all(0 <= each.place < count for each in variants.choose(made, 0, damage=False) if each.name != "nothing")


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("work/final_model.int6.ptz", "final_model.int6.ptz", True),
        ("work/final_model.int6.ptz", "final_modelxint6.ptz", False),
        ("a/c61abf86-2489-4bbf-95d6-5aa8474a0e24.zlib", "798e36b7-c4bf-4a2a-8d9a-8c1f4578fd59.zlib", True),
        ("run_20260407_113245_q.bin", "run_20270101_000000_q.bin", True),
        ("model-0123456789abcdef.pt", "model-fedcba9876543210.pt", True),
        ("model_1774000000.pt", "model_1774000321.pt", True),
        ("model_v2.pt", "model_v3.pt", False),
        ("decodeddecoder.pt", "decodeddecoders.pt", False),
    ],
)
def test_a_file_is_known_again_by_what_no_run_names_otherwise(name: str, other: str, same: bool) -> None:  # noqa: FBT001
    assert (re.fullmatch(variants.named(name), other) is not None) is same
    assert re.fullmatch(variants.named(name), name.rpartition("/")[2])
