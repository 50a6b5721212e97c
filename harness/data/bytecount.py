"""Bytes of text behind tokens: the competition's table, per token and summed over a shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.model import HarnessError
from harness.sources.shards import CHUNK_TOKENS, Tokens, chunks

SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of a tokenizer's alphabet, as far as bytes depend on it.

    Attributes:
        text: the piece, spaces written as U+2581.
        is_byte: stands for one raw byte.
        is_boundary: control, unknown or unused: no text of its own.
    """

    text: str
    is_byte: bool = False
    is_boundary: bool = False


@dataclass(frozen=True, slots=True)
class ByteTable:
    """Bytes that each token adds.

    A token counts the UTF-8 bytes of its piece without a leading U+2581, and one more for that U+2581 unless the
    token before it is a boundary; byte tokens count 1, boundaries 0. Source: `build_sentencepiece_luts` of the
    competition's baseline; #1719 and #897 show what other tables do.

    Attributes:
        base: bytes without the leading space, shape (vocab,).
        leading: whether the piece begins with U+2581, shape (vocab,).
        boundary: whether the token is a boundary, shape (vocab,).
    """

    base: NDArray[np.int16]
    leading: NDArray[np.bool_]
    boundary: NDArray[np.bool_]

    @classmethod
    def of(cls, pieces: list[Piece]) -> ByteTable:
        """The table of an alphabet, in the order of its ids."""
        base = np.array([_base_bytes(piece) for piece in pieces], dtype=np.int16)
        plain = [not (piece.is_boundary or piece.is_byte) for piece in pieces]
        leading = [keep and piece.text.startswith(SPACE) for keep, piece in zip(plain, pieces, strict=True)]
        return cls(base, np.array(leading), np.array([piece.is_boundary for piece in pieces]))

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.base.size

    def count(self, tokens: Tokens, previous: int | None = None, progress: Callable[[int], None] | None = None) -> int:
        """Bytes of a run of tokens.

        Args:
            tokens: ids below `vocab_size`, shape (tokens,).
            previous: the token before the first one; None for a boundary.
            progress: called with the number of tokens of each finished chunk.

        Raises:
            HarnessError: an id outside the table, with its position.
        """
        total = 0
        after_boundary = True if previous is None else bool(self.boundary[previous])
        for k, part in enumerate(chunks(tokens)):
            histogram = np.bincount(part, minlength=self.vocab_size)
            if histogram.size > self.vocab_size:
                raise self._unknown_token(part, k * CHUNK_TOKENS)
            total += int(histogram @ self.base) + int(histogram @ self.leading)
            total -= self._spaces_after_boundaries(part, histogram)
            total -= int(after_boundary and self.leading[part[0]])
            after_boundary = bool(self.boundary[part[-1]])
            if progress is not None:
                progress(part.size)
        return total

    def _spaces_after_boundaries(self, part: Tokens, histogram: NDArray[np.intp]) -> int:
        """Leading spaces that do not count because a boundary of the same chunk stands before them; they are few."""
        boundaries = np.flatnonzero(self.boundary)
        places = [np.flatnonzero(part == token) + 1 for token in boundaries[histogram[boundaries] > 0]]
        followers = [part[place[place < part.size]] for place in places]
        return sum(int(np.count_nonzero(self.leading[follower])) for follower in followers)

    def _unknown_token(self, part: Tokens, offset: int) -> HarnessError:
        index = int(np.argmax(part >= self.vocab_size))
        return HarnessError(
            f"token {int(part[index])} at position {offset + index:,}: expected ids from 0 to {self.vocab_size - 1}"
        )


def _base_bytes(piece: Piece) -> int:
    if piece.is_boundary:
        return 0
    if piece.is_byte:
        return 1
    return len(piece.text.removeprefix(SPACE).encode())
