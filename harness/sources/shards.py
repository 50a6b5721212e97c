"""Token shards: 1,024 bytes of header, then little-endian uint16 tokens; the one reader of both.

The header is 256 little-endian int32: magic 20240520, version 1, the number of tokens, zeros. A file that is not
exactly what its header says is refused with the field, its offset, what was found and what was expected. Tokens are
memory-mapped, so that a shard of 200 MB costs no memory before it is looked at.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.challenge import BOS_TOKEN, SHARD_HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION
from harness.model import HarnessError

TOKEN_BYTES = 2
CHUNK_TOKENS = 1 << 22

Tokens: TypeAlias = NDArray[np.uint16]
Offsets: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """A shard whose header agrees with its size.

    Attributes:
        path: the file.
        tokens: number of tokens, at least 1.
        size_bytes: size of the file, header included.
    """

    path: Path
    tokens: int
    size_bytes: int


def shard_size_bytes(tokens: int) -> int:
    """Size of a shard of so many tokens.

    Example:
        >>> shard_size_bytes(62_021_846)
        124044716
    """
    return SHARD_HEADER_BYTES + TOKEN_BYTES * tokens


def read_header(path: Path) -> ShardHeader:
    """Read and check the header of one shard; reads 1,024 bytes.

    Raises:
        HarnessError: no such regular file, or a header that is not the format's or does not agree with the size.
    """
    size = _regular_file_size(path)
    if size < SHARD_HEADER_BYTES:
        what = "empty file" if size == 0 else "truncated header"
        raise HarnessError(f"{path}: {what}: found {size:,} bytes, expected at least {SHARD_HEADER_BYTES:,}")
    with path.open("rb") as stream:
        fields = np.frombuffer(stream.read(SHARD_HEADER_BYTES), dtype="<i4")
    _check_field(path, "magic", 0, found=int(fields[0]), expected=SHARD_MAGIC)
    _check_field(path, "version", 4, found=int(fields[1]), expected=SHARD_VERSION)
    used = np.flatnonzero(fields[3:])
    if used.size:
        index = 3 + int(used[0])
        _check_field(path, "reserved field", 4 * index, found=int(fields[index]), expected=0)
    count = int(fields[2])
    _check_size(path, count, size)
    return ShardHeader(path, count, size)


def _regular_file_size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise HarnessError(f"{path}: is not a regular file")
    return status.st_size


def _check_field(path: Path, field: str, offset: int, *, found: int, expected: int) -> None:
    if found != expected:
        raise HarnessError(f"{path}: {field} at byte {offset}: found {found}, expected {expected}")


def _check_size(path: Path, count: int, size: int) -> None:
    """Refuse a token count that the file does not hold exactly."""
    body = size - SHARD_HEADER_BYTES
    claim = f"token count at byte 8: found {count:,}"
    if count < 1:
        raise HarnessError(f"{path}: {claim}, expected at least 1 (the file holds {body:,} bytes of tokens)")
    if body % TOKEN_BYTES:
        raise HarnessError(f"{path}: odd size: found {body:,} bytes after the header, expected {TOKEN_BYTES} per token")
    expected = shard_size_bytes(count)
    if size != expected:
        what = "truncated" if size < expected else "oversized"
        raise HarnessError(
            f"{path}: {what}: {claim}, so expected {expected:,} bytes, but the file has {size:,} "
            f"(room for {body // TOKEN_BYTES:,} tokens)"
        )


def open_tokens(header: ShardHeader) -> Tokens:
    """The tokens of a shard, shape (tokens,), memory-mapped and read-only.

    Raises:
        HarnessError: the file shrank or vanished since its header was read.
    """
    try:
        # A view of the map as a plain array: the memmap class makes every slice slower.
        return np.asarray(np.memmap(header.path, "<u2", mode="r", offset=SHARD_HEADER_BYTES, shape=(header.tokens,)))
    except (OSError, ValueError) as error:
        raise HarnessError(f"{header.path}: cannot be mapped: {error}") from error


def read_tokens(path: Path) -> Tokens:
    """Check one shard's header and map its tokens, shape (tokens,).

    Raises:
        HarnessError: see `read_header`.
    """
    return open_tokens(read_header(path))


def chunks(tokens: Tokens, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[Tokens]:
    """Consecutive views of at most `chunk_tokens` tokens, so that temporaries stay small."""
    for start in range(0, tokens.size, chunk_tokens):
        yield tokens[start : start + chunk_tokens]


def document_starts(tokens: Tokens) -> Offsets:
    """Positions of the tokens that begin a document (BOS), ascending, shape (documents,)."""
    starts = [np.flatnonzero(part == BOS_TOKEN) + CHUNK_TOKENS * k for k, part in enumerate(chunks(tokens))]
    return np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)
