"""The text of a certificate: the beginning of a validation split, its bytes counted twice, and its stream's file."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.challenge import BOS_TOKEN
from harness.data import tokenizer as tokenizers
from harness.data.bytecount import ByteTable
from harness.model import HarnessError
from harness.sources import shards
from harness.sources.shards import Tokens

VALIDATION: Final = "fineweb_val_*.bin"
MAGIC: Final = b"PGC1"
HEADER: Final = struct.Struct("<4sQI")


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens and what they stand for.

    Attributes:
        tokens: all of them; the first is known, the others are predicted.
        vocabulary: size of the alphabet.
        byte_count: bytes that the predicted ones add, by the tokenizer's table: what bits per byte are divided by.
        normalized: the decoded documents; None where the tokenizer cannot decode.
    """

    tokens: Tokens
    vocabulary: int
    byte_count: int
    normalized: bytes | None

    def sha256(self) -> str:
        """Hash of the tokens, as they lie in a shard."""
        return hashlib.sha256(self.tokens.astype("<u2").tobytes()).hexdigest()


def choose(folder: Path, tokenizer: Path, *, byte_count: int = 0, token_count: int = 0) -> Text:
    """The shortest beginning of the validation split with so many bytes, or with so many tokens.

    Raises:
        HarnessError: no validation shards, or the split is too short.
    """
    paths = sorted(folder.glob(VALIDATION))
    if not paths:
        raise HarnessError(f"{folder}: no validation shards {VALIDATION}")
    loaded = tokenizers.load(tokenizer)
    tokens = np.zeros(0, np.uint16)
    for path in paths:
        tokens = np.concatenate((tokens, shards.read_tokens(path)))
        end = _end(tokens, loaded.table, byte_count, token_count)
        if end:
            return _text(tokens[:end], loaded)
    had = loaded.table.count(tokens[1:], int(tokens[0]))
    wanted = f"{byte_count:,} bytes" if byte_count else f"{token_count:,} tokens"
    raise HarnessError(f"{folder}: {wanted} wanted, the validation split has {tokens.size:,} tokens and {had:,} bytes")


def _end(tokens: Tokens, table: ByteTable, byte_count: int, token_count: int) -> int:
    """Where the text ends; 0 where the tokens do not suffice."""
    if token_count:
        return token_count if token_count <= tokens.size else 0
    if int(tokens.max()) >= table.vocab_size:
        raise HarnessError(f"token {int(tokens.max())}: expected ids from 0 to {table.vocab_size - 1}")
    spaces = table.leading[tokens[1:]] & ~table.boundary[tokens[:-1]]
    sizes = np.cumsum(table.base[tokens[1:]].astype(np.int64) + spaces)
    enough = int(np.searchsorted(sizes, byte_count))
    return enough + 2 if enough < sizes.size else 0


def _text(tokens: Tokens, tokenizer: tokenizers.Tokenizer) -> Text:
    size = tokenizer.table.count(tokens[1:], int(tokens[0]))
    return Text(tokens, tokenizer.vocab_size, size, normalized(tokens, tokenizer))


def normalized(tokens: Tokens, tokenizer: tokenizers.Tokenizer) -> bytes | None:
    """The decoded documents in UTF-8, side by side."""
    if tokenizer.processor is None:
        return None
    cuts = np.flatnonzero(tokens == BOS_TOKEN)
    documents = np.split(tokens, cuts[cuts > 0])
    return "".join(tokenizer.decode(documents)).encode()


def decoded_bytes(tokens: Sequence[int], tokenizer: Path) -> bytes | None:
    """The text of tokens in UTF-8, by a tokenizer's file; ids that it does not have make it None."""
    loaded = tokenizers.load(tokenizer)
    found = np.array(tokens)
    return normalized(found.astype(np.uint16), loaded) if int(found.max()) < loaded.vocab_size else None


def stream_file(text: Text, payload: bytes) -> bytes:
    """The compressed text: magic, number of tokens, first token, the coder's words."""
    return HEADER.pack(MAGIC, text.tokens.size, int(text.tokens[0])) + payload


def read_stream(data: bytes) -> tuple[int, int, bytes]:
    """Number of tokens, first token and the coder's words of a compressed text.

    Raises:
        HarnessError: it is none.
    """
    if len(data) < HEADER.size or (len(data) - HEADER.size) % 4 or data[:4] != MAGIC:
        raise HarnessError(f"{len(data)} bytes that are no compressed text")
    _, tokens, first = HEADER.unpack_from(data)
    return tokens, first, data[HEADER.size :]
