"""Byte tables and tokenizers: hand-counted bytes, and SentencePiece as the oracle."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import tokenizer
from harness.data.bytecount import ByteTable, Piece
from harness.data.tokenizer import Tokenizer
from harness.model import HarnessError
from harness.sources import shards

TEXT = [
    "The quick brown fox jumps over the lazy dog while 12 wizards brew a potion.",
    "Crème brûlée costs 4 € here; the naïve price → ½ of that elsewhere, they say.",
    "Pack my box with five dozen liquor jugs, then read the fine print below it.",
]

# pad, BOS, EOS, unknown, then: "▁the", "a", "é", "▁", byte, unused
PIECES = [
    Piece("<pad>", is_boundary=True),
    Piece("<s>", is_boundary=True),
    Piece("</s>", is_boundary=True),
    Piece("<unk>", is_boundary=True),
    Piece("\u2581the"),
    Piece("a"),
    Piece("é"),
    Piece("\u2581"),
    Piece("<0xE2>", is_byte=True),
    Piece("\u2581gone", is_boundary=True),
]


def ids(*values: int) -> shards.Tokens:
    return np.array(values, dtype=np.uint16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizers") / "small_320_bpe.model"
    path.write_bytes(tokenizer.train_bpe(TEXT * 20, 320))
    return tokenizer.load(path)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (ids(1, 5), 1),  # BOS 0, "a" 1
        (ids(1, 4), 3),  # the space after BOS does not count
        (ids(5, 4), 5),  # after text it does: 1 + 3 + 1
        (ids(1, 6, 8, 7), 4),  # é 2, byte 1, space 1
        (ids(3, 7), 0),  # a space after unknown
        (ids(9, 4, 9), 3),  # unused counts nothing and is a boundary
        (ids(4), 3),  # nothing before it: a boundary
    ],
)
def test_hand_counted(tokens: shards.Tokens, expected: int) -> None:
    assert ByteTable.of(PIECES).count(tokens) == expected


def test_what_stands_before_matters() -> None:
    table = ByteTable.of(PIECES)
    assert table.count(ids(4), previous=5) == 4
    assert table.count(ids(4), previous=1) == 3


def test_ids_out_of_range_name_their_place() -> None:
    with pytest.raises(HarnessError, match="token 10 at position 2: expected ids from 0 to 9"):
        ByteTable.of(PIECES).count(ids(1, 5, 10, 11))


def naive_count(tokens: list[int]) -> int:
    """Token by token, as DATA says it."""
    total, boundary = 0, True
    for token in tokens:
        piece = PIECES[token]
        if not piece.is_boundary:
            total += 1 if piece.is_byte else len(piece.text.replace("\u2581", "").encode())
            total += piece.text.startswith("\u2581") and not boundary
        boundary = piece.is_boundary
    return total


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 5))
def test_any_chunking_counts_the_same(values: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.data.bytecount.chunks", lambda tokens: shards.chunks(tokens, chunk))
        assert ByteTable.of(PIECES).count(ids(*values)) == naive_count(values)


def test_training_twice_gives_the_same_bytes() -> None:
    assert tokenizer.train_bpe(TEXT * 20, 320) == tokenizer.train_bpe(TEXT * 20, 320)


def test_trained_with_the_options_of_the_competition(trained: Tokenizer) -> None:
    processor = trained.processor
    assert processor is not None
    assert [processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()] == [0, 1, 2, 3]
    assert trained.vocab_size == 320
    assert sum(processor.is_byte(i) for i in range(320)) == 256
    assert processor.encode("12", out_type=str) == ["1", "2"]  # digits apart
    assert processor.encode("fox", out_type=str)[0] != "\u2581"  # no dummy prefix


def test_encoding_begins_with_bos_and_decodes_to_the_text(trained: Tokenizer) -> None:
    texts = tokenizer.normalize(TEXT)
    encoded = trained.encode(texts)
    assert [int(tokens[0]) for tokens in encoded] == [1, 1, 1]
    assert trained.decode(encoded) == texts


@given(st.text(max_size=60))
def test_table_agrees_with_decoding(trained: Tokenizer, raw: str) -> None:
    text = tokenizer.normalize([raw])[0]
    tokens = trained.encode([text])[0]
    assert trained.table.count(tokens) == len(trained.decode([tokens])[0].encode())


def test_normalization_is_sentencepieces_own() -> None:
    assert tokenizer.normalize([" ﬁle\u00a0 name… ", "½"]) == ["file name...", "1\u20442"]


def test_vocabulary_file(trained: Tokenizer) -> None:
    lines = tokenizer.vocabulary(trained).splitlines()
    assert lines[:5] == ["<pad>\t0", "<s>\t0", "</s>\t0", "<unk>\t0", "<0x00>\t0"]
    assert len(lines) == 320


def test_pure_bytes(tmp_path: Path) -> None:
    path = tmp_path / "fineweb_pure_byte_260.json"
    path.write_text("{}")
    pure = tokenizer.load(path)
    assert pure.vocab_size == 260
    assert pure.table.count(ids(1, 4 + 65, 4 + 0xC3, 4 + 0xA9)) == 3
    for action in (lambda: pure.encode(["x"]), lambda: pure.decode([ids(1)]), lambda: tokenizer.vocabulary(pure)):
        with pytest.raises(HarnessError, match="not a SentencePiece model"):
            action()


def test_unusable_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.model"
    with pytest.raises(HarnessError, match="no such tokenizer"):
        tokenizer.load(path)
    path.write_bytes(b"not a model")
    with pytest.raises(HarnessError, match="not a SentencePiece model"):
        tokenizer.load(path)
    path.write_bytes(b"")
    with pytest.raises(HarnessError, match="not a SentencePiece model"):
        tokenizer.load(path)
    monkeypatch.setattr(tokenizer, "MODEL_CAP_BYTES", 3)
    path.write_bytes(b"1234")
    with pytest.raises(HarnessError, match="found 4 bytes, expected a tokenizer of at most 3"):
        tokenizer.load(path)


def test_too_little_text() -> None:
    with pytest.raises(HarnessError, match="could not train 100 pieces"):
        tokenizer.train_bpe(["some text"], 100)


def test_without_sentencepiece_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(HarnessError, match=r"parameter-golf-harness\[demo\]"):
        tokenizer.normalize(["x"])
