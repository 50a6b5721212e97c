"""Shards: damage is named, and the order of tokens depends on nothing but the shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_model.data import (
    SHARD_MAGIC,
    BatchLoader,
    ShardError,
    TokenStream,
    find_shards,
    load_validation,
    map_shard,
    shard_length,
)
from reference_model.worker import Worker


def shard_bytes(tokens: Sequence[int], magic: int = SHARD_MAGIC, version: int = 1, count: int | None = None) -> bytes:
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    return header.tobytes() + np.array(tokens, "<u2").tobytes()


def write_shards(folder: Path, lengths: Sequence[int]) -> tuple[Path, ...]:
    """Shards that count up from 0 over all of them."""
    start = 0
    for number, length in enumerate(lengths):
        (folder / f"fineweb_train_{number:06d}.bin").write_bytes(shard_bytes(range(start, start + length)))
        start += length
    return find_shards(folder / "fineweb_train_*.bin")


def test_a_shard_gives_its_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(shard_bytes([1, 500, 65535]))
    assert shard_length(path) == 3
    assert map_shard(path).tolist() == [1, 500, 65535]
    assert isinstance(map_shard(path), np.memmap)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, shorter than the 1024 bytes"),
        (shard_bytes([1])[:1000], "1000 bytes, shorter than the 1024 bytes"),
        (shard_bytes([1], magic=7), "magic 7 version 1, not 20240520 version 1"),
        (shard_bytes([1], version=2), "version 2"),
        (shard_bytes([]), "1024 bytes, but its header says 0 tokens"),
        (shard_bytes([], count=-4), "says -4 tokens"),
        (shard_bytes([1, 2, 3])[:-2], "1028 bytes, but its header says 3 tokens"),
        (shard_bytes([1, 2, 3])[:-1], "1029 bytes, but its header says 3 tokens"),
        (shard_bytes([1, 2, 3]) + b"\0", "1031 bytes, but its header says 3 tokens"),
        (shard_bytes([1, 2, 3], count=2**31 - 1), "says 2147483647 tokens"),
    ],
)
def test_damage_is_one_error_that_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    with pytest.raises(ShardError, match=rf"bad\.bin: .*{message}"):
        TokenStream([path], 65536)
    with pytest.raises(ShardError, match=message):
        load_validation(path, 65536)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"fineweb_val_\*\.bin: no such shards"):
        load_validation(tmp_path / "fineweb_val_*.bin", 10)
    with pytest.raises(ShardError, match=r"gone\.bin: No such file"):
        shard_length(tmp_path / "gone.bin")
    with pytest.raises(ShardError, match="no shards"):
        TokenStream([], 10)


def test_shards_are_sorted_and_brackets_in_folders_are_no_wildcards(tmp_path: Path) -> None:
    folder = tmp_path / "odd[1]name"
    folder.mkdir()
    for name in ("v_10.bin", "v_02.bin", "v_01.bin", "other.bin"):
        (folder / name).write_bytes(shard_bytes([int(name[2:4])] if name[0] == "v" else [9]))
    assert [path.name for path in find_shards(f"{folder}/v_*.bin")] == ["v_01.bin", "v_02.bin", "v_10.bin"]
    tokens = load_validation(f"{folder}/v_*.bin", 11)
    assert (tokens.tolist(), tokens.dtype) == ([1, 2, 10], torch.int32)


def test_tokens_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(shard_bytes([0, 9, 3]))
    assert load_validation(path, 10).tolist() == [0, 9, 3]
    with pytest.raises(ShardError, match=r"a\.bin: token 9 is outside the vocabulary of 9"):
        load_validation(path, 9)
    with pytest.raises(ShardError, match="token 9 is outside"):
        TokenStream([path], 9).read(0, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 50), st.integers(0, 60))
def test_the_stream_repeats_without_end(tmp_path: Path, lengths: list[int], start: int, count: int) -> None:
    for path in tmp_path.glob("*.bin"):
        path.unlink()
    stream = TokenStream(write_shards(tmp_path, lengths), 65536)
    total = sum(lengths)
    assert stream.total == total
    assert stream.read(start, count).tolist() == [place % total for place in range(start, start + count)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2]), st.integers(1, 3), st.integers(1, 5), st.integers(0, 20))
def test_processes_share_one_global_batch(
    tmp_path: Path, world_size: int, accumulation: int, per_micro: int, seq_len: int, step: int
) -> None:
    stream = TokenStream(write_shards(tmp_path, [40, 7, 53]), 65536)
    size = world_size * accumulation * per_micro * seq_len
    inputs: list[int] = []
    aims: list[int] = []
    for rank in range(world_size):
        loader = BatchLoader(stream, size, seq_len, Worker(rank, world_size), accumulation)
        for micro in range(accumulation):
            batch = loader.batch(step, micro)
            assert batch[0].shape == batch[1].shape == (per_micro, seq_len)
            assert batch[0].dtype == torch.int64
            inputs += batch[0].flatten().tolist()
            aims += batch[1].flatten().tolist()
    assert inputs == [(step * size + place) % 100 for place in range(size)]
    assert aims == [(token + 1) % 100 for token in inputs]


def test_a_batch_that_cannot_be_cut_evenly_is_refused(tmp_path: Path) -> None:
    stream = TokenStream(write_shards(tmp_path, [10]), 65536)
    with pytest.raises(ShardError, match="24 tokens is not a multiple of 4 tokens per sequence x 2 processes x 2"):
        BatchLoader(stream, 24, 4, Worker(0, 2), 2)
