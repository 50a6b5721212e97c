"""The shard reader: what it accepts, and one clear error for each way in which a shard can be wrong."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.corpus import write_shard
from harness.model import HarnessError
from harness.sources import shards

MAGIC, VERSION = 20240520, 1


def raw_shard(
    tokens: list[int], *, magic: int = MAGIC, version: int = VERSION, count: int | None = None, reserved: int = 0
) -> bytes:
    count = len(tokens) if count is None else count
    return struct.pack("<256i", magic, version, count, reserved, *[0] * 252) + struct.pack(f"<{len(tokens)}H", *tokens)


def test_reads_what_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "fineweb_val_000000.bin"
    path.write_bytes(raw_shard([1, 500, 65535]))
    header = shards.read_header(path)
    assert (header.tokens, header.size_bytes) == (3, 1030)
    assert shards.open_tokens(header).tolist() == [1, 500, 65535]


def test_published_size_follows_from_the_published_count() -> None:
    assert shards.shard_size_bytes(62_021_846) == 124_044_716


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_written_shards_read_back(tmp_path_factory: pytest.TempPathFactory, ids: list[int]) -> None:
    path = tmp_path_factory.mktemp("shard") / "x.bin"
    write_shard(path, np.array(ids, dtype=np.uint16))
    assert path.read_bytes() == raw_shard(ids)
    assert shards.read_tokens(path).tolist() == ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file: found 0 bytes, expected at least 1,024"),
        (b"\0" * 1023, "truncated header: found 1,023 bytes, expected at least 1,024"),
        (raw_shard([1, 2], magic=20240521), "magic at byte 0: found 20240521, expected 20240520"),
        (raw_shard([1, 2], version=2), "version at byte 4: found 2, expected 1"),
        (raw_shard([1, 2], reserved=7), "reserved field at byte 12: found 7, expected 0"),
        (raw_shard([]), "token count at byte 8: found 0, expected at least 1"),
        (raw_shard([1, 2], count=-5), "token count at byte 8: found -5, expected at least 1"),
        (raw_shard([1, 2]) + b"\0", "odd size: found 5 bytes after the header, expected 2 per token"),
        (raw_shard([1, 2, 3])[:-2], "truncated: token count at byte 8: found 3, so expected 1,030 bytes"),
        (raw_shard([1, 2, 3]) + b"\0\0", "oversized: token count at byte 8: found 3, so expected 1,030 bytes"),
        (raw_shard([1, 2], count=2**31 - 1), "truncated: token count at byte 8: found 2,147,483,647"),
    ],
)
def test_refuses_with_field_offset_found_and_expected(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "fineweb_train_000003.bin"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=re.escape(f"{path}: {message}")):
        shards.read_header(path)


def test_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not a regular file"):
        shards.read_header(tmp_path)
    with pytest.raises(HarnessError, match="cannot be read: No such file"):
        shards.read_header(tmp_path / "absent.bin")


def test_a_file_that_shrinks_after_its_header_was_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(raw_shard([1, 2, 3]))
    header = shards.read_header(path)
    path.write_bytes(raw_shard([1]))
    with pytest.raises(HarnessError, match="cannot be mapped"):
        shards.open_tokens(header)


@given(st.binary(max_size=1100))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "x.bin"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=re.escape(str(path))):
        shards.read_header(path)


def test_document_starts_across_chunks() -> None:
    tokens = np.zeros(shards.CHUNK_TOKENS + 3, dtype=np.uint16)
    places = [0, 7, shards.CHUNK_TOKENS - 1, shards.CHUNK_TOKENS, shards.CHUNK_TOKENS + 2]
    tokens[places] = 1
    assert shards.document_starts(tokens).tolist() == places
    assert shards.document_starts(tokens[1:7]).tolist() == []
