"""Token shards: read, checked and dealt out in one deterministic order.

A shard is 256 little-endian int32 (magic, version, token count, zeros), then that many uint16 tokens. Shape letters:
B sequences, T tokens of a sequence.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reference_model.worker import Worker

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_BYTES = 1024


class ShardError(ValueError):
    """Token files that cannot be used; the message names the file."""


def find_shards(pattern: str | Path) -> tuple[Path, ...]:
    """Files matching a pattern in their sorted order; only the last path component may hold wildcards.

    Raises:
        ShardError: nothing matches.
    """
    paths = tuple(sorted(Path(pattern).parent.glob(Path(pattern).name)))
    if not paths:
        raise ShardError(f"{pattern}: no such shards")
    return paths


def shard_length(path: Path) -> int:
    """Number of tokens of a shard, after checking its header against its size.

    Raises:
        ShardError: unreadable, wrong magic or version, empty, truncated or too long.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(SHARD_HEADER_BYTES)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    if len(header) < SHARD_HEADER_BYTES:
        raise ShardError(f"{path}: {size} bytes, shorter than the {SHARD_HEADER_BYTES} bytes of a shard's header")
    magic, version, count = (int(word) for word in np.frombuffer(header, dtype="<i4", count=3))
    if (magic, version) != (SHARD_MAGIC, SHARD_VERSION):
        raise ShardError(f"{path}: magic {magic} version {version}, not {SHARD_MAGIC} version {SHARD_VERSION}")
    if count <= 0 or size != SHARD_HEADER_BYTES + 2 * count:
        raise ShardError(f"{path}: {size} bytes, but its header says {count} tokens")
    return count


def map_shard(path: Path) -> npt.NDArray[np.uint16]:
    """A shard's tokens, memory-mapped; raises ShardError as `shard_length` does."""
    return np.memmap(path, dtype="<u2", mode="r", offset=SHARD_HEADER_BYTES, shape=(shard_length(path),))


def load_validation(pattern: str | Path, vocab_size: int) -> Tensor:
    """All tokens of the validation shards, in sorted order, as one int32 vector.

    Raises:
        ShardError: no shards, a damaged shard, or a token outside the vocabulary.
    """
    parts = []
    for path in find_shards(pattern):
        shard = map_shard(path)
        _check_token_range(path, shard, vocab_size)
        parts.append(shard.astype(np.int32))
    return torch.from_numpy(np.concatenate(parts))


def _check_token_range(place: Path, tokens: npt.NDArray[np.uint16], vocab_size: int) -> None:
    if (largest := int(tokens.max())) >= vocab_size:
        raise ShardError(f"{place}: token {largest} is outside the vocabulary of {vocab_size}")


class TokenStream:
    """An endless stream of tokens: the shards one after another, and again from the first.

    Any place of it can be read, so that order depends on nothing but the shards.
    """

    def __init__(self, paths: Sequence[Path], vocab_size: int) -> None:
        if not paths:
            raise ShardError("no shards to read")
        self._paths = tuple(paths)
        self._ends = tuple(itertools.accumulate(shard_length(path) for path in paths))
        self._vocab_size = vocab_size
        self._open: tuple[int, npt.NDArray[np.uint16]] | None = None

    @property
    def total(self) -> int:
        """Tokens before the stream repeats."""
        return self._ends[-1]

    def read(self, start: int, count: int) -> npt.NDArray[np.uint16]:
        """Tokens [start, start + count) of the endless stream."""
        tokens = np.empty(count, dtype=np.uint16)
        done = 0
        while done < count:
            piece = self._piece((start + done) % self.total, count - done)
            tokens[done : done + len(piece)] = piece
            done += len(piece)
        return tokens

    def _piece(self, place: int, count: int) -> npt.NDArray[np.uint16]:
        """Up to `count` tokens from one shard."""
        index = bisect.bisect_right(self._ends, place)
        if self._open is None or self._open[0] != index:
            self._open = (index, map_shard(self._paths[index]))
        offset = place - (self._ends[index - 1] if index else 0)
        piece = self._open[1][offset : offset + count]
        _check_token_range(self._paths[index], piece, self._vocab_size)
        return piece


class BatchLoader:
    """Deals the stream out: global batch `step` is its next `batch_tokens` tokens, cut into sequences.

    Each process gets a contiguous part of each global batch, in `accumulation` micro-batches: together they are the
    same batch for every number of processes. Reading has no state, so any step can be read again.

    Raises:
        ShardError: a batch cannot be cut evenly.
    """

    def __init__(
        self, stream: TokenStream, batch_tokens: int, seq_len: int, worker: Worker, accumulation: int = 1
    ) -> None:
        parts = worker.world_size * accumulation
        if batch_tokens % (seq_len * parts):
            raise ShardError(
                f"a batch of {batch_tokens} tokens is not a multiple of {seq_len} tokens per sequence"
                f" x {worker.world_size} processes x {accumulation} micro-batches"
            )
        self._stream = stream
        self._batch_tokens = batch_tokens
        self._seq_len = seq_len
        self._worker = worker
        self.accumulation = accumulation
        self.micro_tokens = batch_tokens // parts

    def batch(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) int64 of one micro-batch of this process; targets are one token ahead."""
        part = self._worker.rank * self.accumulation + micro
        tokens = self._stream.read(step * self._batch_tokens + part * self.micro_tokens, self.micro_tokens + 1)
        row = torch.from_numpy(tokens.astype(np.int64)).to(self._worker.device)
        return row[:-1].view(-1, self._seq_len), row[1:].view(-1, self._seq_len)
