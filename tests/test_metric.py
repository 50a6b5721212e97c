"""Bytes per token and bits per byte, against hand-computed values and the tokenizer's own decoding."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference_model.metric import ByteTable, bits_per_byte, load_byte_table, piece_bytes

TEXT = "the cat sat on the mat and the dog ate the hat; a naïve über-cat saw that the rat ran at noon"


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-fallback BPE model, as the challenge makes them."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 20),
        model_writer=writer,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        pad_id=3,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    path.write_bytes(writer.getvalue())
    return path


def token_bytes(table: ByteTable, tokens: list[int]) -> int:
    row = torch.tensor(tokens)
    return int(table.count(row[:-1], row[1:]).sum())


@given(st.lists(st.sampled_from([*TEXT.split(), "Zürich", "日本", "x"]), min_size=1, max_size=12))
def test_the_table_counts_what_decoding_gives(model_path: Path, words: list[str]) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    tokens = model.encode(" ".join(words))
    table = load_byte_table(model_path, 400)
    assert token_bytes(table, [model.bos_id(), *tokens]) == len(model.decode(tokens).encode())


def test_hand_counted_tokens(model_path: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    table = load_byte_table(model_path, 400)
    the, byte = model.piece_to_id("▁the"), model.piece_to_id("<0xE6>")
    bos, unknown, pad, unused = model.bos_id(), model.unk_id(), model.pad_id(), 399
    for boundary in (bos, unknown, pad, unused):
        assert token_bytes(table, [boundary, the]) == 3
        assert token_bytes(table, [the, boundary]) == 0
    assert token_bytes(table, [the, the]) == 4
    assert token_bytes(table, [byte, the]) == 4
    assert token_bytes(table, [the, byte, byte, byte]) == 3


@pytest.mark.parametrize(
    ("piece", "expected"),
    [("cat", (3, False)), ("▁cat", (3, True)), ("▁", (0, True)), ("▁ü日", (5, True)), ("a▁b", (3, False))],
)
def test_bytes_of_pieces(piece: str, expected: tuple[int, bool]) -> None:
    assert piece_bytes(piece) == expected


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(model_path: Path) -> None:
    assert load_byte_table(model_path, 320).vocab_size == 320
    with pytest.raises(ValueError, match=r"small\.model: 320 tokens do not fit the vocabulary of 319"):
        load_byte_table(model_path, 319)


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.model"
    path.write_bytes(b"not a model")
    for unreadable in (path, tmp_path / "absent.model"):
        with pytest.raises(ValueError, match=unreadable.name):
            load_byte_table(unreadable, 320)


def test_bits_per_byte_of_a_hand_computed_example() -> None:
    # Four targets of probability 1/2, 1/4, 1/8 and 1/4 cost 8 bits; they stand for 5 bytes.
    loss_sum_nats = sum(-math.log(p) for p in (1 / 2, 1 / 4, 1 / 8, 1 / 4))
    assert bits_per_byte(loss_sum_nats, 5) == pytest.approx(1.6, rel=1e-15)


@given(st.floats(0, 1e9), st.integers(1, 2**40), st.integers(1, 2**40))
def test_bits_per_byte_is_the_published_product(loss_sum_nats: float, tokens: int, size: int) -> None:
    val_loss = loss_sum_nats / tokens
    assert bits_per_byte(loss_sum_nats, size) == pytest.approx(val_loss / math.log(2) * (tokens / size), rel=1e-12)


def test_no_bytes_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        bits_per_byte(1.0, 0)
