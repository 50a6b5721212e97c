"""Bits per byte: how many bytes of text a target token stands for, and the arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class ByteTable:
    """Bytes of text per token, from the tokenizer (rule R10); three vectors over the vocabulary.

    Attributes:
        base_bytes: UTF-8 bytes of the piece without its leading space; 1 for a byte token, 0 for control, unknown and
            unused ones.
        leading_space: whether the piece begins with a space.
        boundary: control, unknown or unused: a space after such a token is not text.
    """

    base_bytes: Tensor
    leading_space: Tensor
    boundary: Tensor

    @property
    def vocab_size(self) -> int:
        """Tokens that the table knows."""
        return self.base_bytes.numel()

    def to(self, device: str) -> ByteTable:
        """The same table on a device."""
        return ByteTable(self.base_bytes.to(device), self.leading_space.to(device), self.boundary.to(device))

    def count(self, previous: Tensor, targets: Tensor) -> Tensor:
        """Bytes of each target, given the token before it; all three of one shape, the result int64."""
        return self.base_bytes[targets] + (self.leading_space[targets] & ~self.boundary[previous])


def load_byte_table(path: str | Path, vocab_size: int) -> ByteTable:
    """Byte table of a SentencePiece model; tokens beyond the model's are unused.

    Raises:
        ValueError: no model can be read there, or it has more tokens than the vocabulary.
    """
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable SentencePiece model ({error})") from error
    if (size := model.vocab_size()) > vocab_size:
        raise ValueError(f"{path}: {size} tokens do not fit the vocabulary of {vocab_size}")
    base = torch.zeros(vocab_size, dtype=torch.int64)
    space, boundary = torch.zeros(vocab_size, dtype=torch.bool), torch.ones(vocab_size, dtype=torch.bool)
    for token in range(size):
        boundary[token] = model.is_control(token) or model.is_unknown(token) or model.is_unused(token)
        if not boundary[token]:
            base[token], space[token] = (1, False) if model.is_byte(token) else piece_bytes(model.id_to_piece(token))
    return ByteTable(base, space, boundary)


def piece_bytes(piece: str) -> tuple[int, bool]:
    """UTF-8 bytes of a piece without its leading space mark, and whether it has one; inner marks are one space each.

    Example:
        >>> piece_bytes("▁über")
        (5, True)
    """
    leading = piece.startswith("▁")
    return len(piece[leading:].replace("▁", " ").encode()), leading


def bits_per_byte(loss_sum_nats: float, byte_count: int) -> float:
    """Nats summed over all targets, as bits per byte of their text.

    Raises:
        ValueError: there are no bytes to divide by.
    """
    if byte_count <= 0:
        raise ValueError(f"bits per byte of {byte_count} bytes of text")
    return loss_sum_nats / math.log(2) / byte_count
