"""Tokenizers: trained, loaded, applied and undone. The only module that touches SentencePiece.

SentencePiece is optional (`[demo]` and `[torch]` bring it): it is imported where it is used.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.challenge import BOS_TOKEN
from harness.data.bytecount import ByteTable, Piece
from harness.model import HarnessError
from harness.sources.shards import Tokens

MODEL_CAP_BYTES = 1 << 24  # the largest published model has 8,192 pieces and fewer than 400,000 bytes
NORMALIZATION = "nmt_nfkc"
PURE_BYTE_OFFSET = 4  # ids below it are pad, BOS, EOS and unknown; the rest are the 256 bytes
# The number of threads is written into the model, so it is fixed; one is what the documents are few enough for.
TRAINING_THREADS = 1


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A loaded tokenizer.

    Attributes:
        path: its file.
        table: bytes behind each id.
        processor: the SentencePiece processor; None for the pure byte alphabet.
    """

    path: Path
    table: ByteTable
    processor: Any | None

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.table.vocab_size

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Each text as BOS and its ids.

        Raises:
            HarnessError: the pure byte alphabet, which needs no encoder here.
        """
        if self.processor is None:
            raise HarnessError(f"{self.path}: not a SentencePiece model")
        return [np.array([BOS_TOKEN, *ids], dtype=np.uint16) for ids in self.processor.encode(list(texts))]

    def decode(self, documents: Iterable[Tokens]) -> list[str]:
        """The text of each document; control tokens give none.

        Raises:
            HarnessError: the pure byte alphabet.
        """
        if self.processor is None:
            raise HarnessError(f"{self.path}: not a SentencePiece model")
        texts: list[str] = self.processor.decode([document.tolist() for document in documents])
        return texts


def load(path: Path) -> Tokenizer:
    """Load a SentencePiece model, or the competition's pure byte alphabet (`.json`).

    Raises:
        HarnessError: not such a file, or SentencePiece is not installed.
    """
    if not path.is_file():
        raise HarnessError(f"{path}: no such tokenizer")
    if path.suffix == ".json":
        return Tokenizer(path, ByteTable.of(_pure_byte_pieces()), None)
    size = path.stat().st_size
    if size > MODEL_CAP_BYTES:
        raise HarnessError(f"{path}: found {size:,} bytes, expected a tokenizer of at most {MODEL_CAP_BYTES:,}")
    return from_proto(path, path.read_bytes())


def from_proto(path: Path, proto: bytes) -> Tokenizer:
    """A tokenizer from the bytes of its model; `path` names it in errors.

    Raises:
        HarnessError: not a SentencePiece model, or SentencePiece is not installed.
    """
    processor = _sentencepiece().SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(proto)
    except (RuntimeError, ValueError) as error:
        raise HarnessError(f"{path}: not a SentencePiece model") from error
    return Tokenizer(path, ByteTable.of([_piece(processor, i) for i in range(processor.vocab_size())]), processor)


def _piece(processor: Any, token: int) -> Piece:  # noqa: ANN401 - SentencePiece has no types
    boundary = processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token)
    return Piece(processor.id_to_piece(token), bool(processor.is_byte(token)), bool(boundary))


def _pure_byte_pieces() -> list[Piece]:
    specials = [Piece("", is_boundary=True)] * PURE_BYTE_OFFSET
    return specials + [Piece("", is_byte=True)] * 256


def normalize(texts: Sequence[str]) -> list[str]:
    """SentencePiece's own normalization, so that decoding what is encoded gives the text back.

    Raises:
        HarnessError: SentencePiece is not installed.
    """
    normalizer = _sentencepiece().SentencePieceNormalizer(
        rule_name=NORMALIZATION, add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=True
    )
    return [normalizer.normalize(text) for text in texts]


def train_bpe(texts: Iterable[str], vocab_size: int) -> bytes:
    """Train a BPE model with the options of the competition's exporter; the same texts give the same bytes.

    Returns:
        the model file.

    Raises:
        HarnessError: SentencePiece is not installed, or the text is too small for the vocabulary.
    """
    model = io.BytesIO()
    try:
        # A writer instead of a file name: the model records the name, and would differ from folder to folder.
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name=NORMALIZATION,
            add_dummy_prefix=False,
            hard_vocab_limit=False,
            pad_id=0,
            bos_id=BOS_TOKEN,
            eos_id=2,
            unk_id=3,
            num_threads=TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise HarnessError(f"SentencePiece could not train {vocab_size} pieces: {error}") from error
    return model.getvalue()


def vocabulary(tokenizer: Tokenizer) -> str:
    """The `.vocab` file beside a model: a line of piece and score for each id.

    Raises:
        HarnessError: the pure byte alphabet.
    """
    processor = tokenizer.processor
    if processor is None:
        raise HarnessError(f"{tokenizer.path}: not a SentencePiece model")
    lines = [f"{processor.id_to_piece(i)}\t{processor.get_score(i):g}\n" for i in range(tokenizer.vocab_size)]
    return "".join(lines)


def sentencepiece_version() -> str:
    """Version of the installed package.

    Raises:
        HarnessError: it is not installed.
    """
    return str(_sentencepiece().__version__)


def _sentencepiece() -> ModuleType:
    try:
        import sentencepiece
    except ImportError as error:
        raise HarnessError(
            "SentencePiece is not installed: pip install 'parameter-golf-harness[demo]' (or [torch])"
        ) from error
    module: ModuleType = sentencepiece
    return module
