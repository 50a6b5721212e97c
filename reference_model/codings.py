"""The interchangeable coders of an artifact's content: one function to encode and one to decode for each."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from reference_model.ans import LARGEST_TABLE_COUNT, Integers, RowTables, decode_rows, encode_rows, fit_tables
from reference_model.coders import (
    SIZE_BYTES,
    SIZE_FORMAT,
    ByteSource,
    CoderError,
    brotli_encoded,
    brotli_source,
    is_installed,
    zstd_encoded,
    zstd_source,
)
from reference_model.payload import (
    ARTIFACT_HEADER_CAP_BYTES,
    INTEGER_BITS,
    Content,
    TensorEntry,
    by_kind,
    from_planes,
    integer_entries,
    parse_header,
    planes,
    section_bytes,
    sized,
    split_integers,
)
from reference_model.quantize import largest_level

# Takes the header and the shapes by name.
HeaderCheck: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], None]


@dataclass(frozen=True)
class Coding:
    """One way to code a content.

    Attributes:
        magic: First bytes of an artifact that is coded so.
        package: What it needs beside zstandard; "" for nothing.
        label: What a log calls it; takes the level of zstd.
        encode: Content and level of zstd to bytes.
        open: Bytes and the limit of their decompressed size to a source, and what stands behind it.
        integers: Reads the integers from both.
    """

    magic: bytes
    package: str
    label: str
    encode: Callable[[Content, int], bytes]
    open: Callable[[bytes, int], tuple[ByteSource, bytes]]
    integers: Callable[[ByteSource, bytes, Sequence[TensorEntry]], tuple[Integers, ...]]


def decode_content(coding: Coding, coded: bytes, raw_cap_bytes: int, expect: HeaderCheck) -> Content:
    """Read a content back.

    Nothing is allocated for sizes that the bytes only claim: each is checked against the others and the cap first,
    and decompression stops where they end.

    Raises:
        CoderError: Anything is wrong with it, or a package is missing.
        zstandard.ZstdError: A frame of zstd is damaged.
    """
    source, behind = coding.open(coded, raw_cap_bytes)
    if source.size > raw_cap_bytes:  # a frame that does not state its size gives 2^64 - 1
        raise CoderError(f"oversized: {source.size} bytes decompressed, the limit is {raw_cap_bytes}")
    (head_bytes,) = struct.unpack(SIZE_FORMAT, source.read(SIZE_BYTES))
    if head_bytes > min(ARTIFACT_HEADER_CAP_BYTES, source.size):
        raise CoderError(f"a header of {head_bytes} bytes")
    head = source.read(head_bytes)
    header, entries = parse_header(head)
    expect(header, {entry.name: entry.shape for entry in entries})
    if (raw_bytes := source.place + sum(section_bytes(entries))) > raw_cap_bytes:
        raise CoderError(f"oversized: {raw_bytes} bytes decompressed, the limit is {raw_cap_bytes}")
    integers = coding.integers(source, behind, entries)
    rest = source.read(source.left)
    source.finish()
    return Content(head, entries, integers, rest)


def _plain_integers(source: ByteSource, _behind: bytes, entries: Sequence[TensorEntry]) -> tuple[Integers, ...]:
    if (expected := sum(section_bytes(entries))) != source.left:
        raise CoderError(f"{source.left} bytes for tensors of {expected}")
    return split_integers(source.read(section_bytes(entries)[0]), entries)


def _encode_zstd(content: Content, level: int) -> bytes:
    return zstd_encoded(content.plain(), level)


def _open_zstd(coded: bytes, raw_cap_bytes: int) -> tuple[ByteSource, bytes]:
    return zstd_source(coded, raw_cap_bytes), b""


def _encode_brotli(content: Content, _level: int) -> bytes:
    return brotli_encoded(content.plain())


def _open_brotli(coded: bytes, _raw_cap_bytes: int) -> tuple[ByteSource, bytes]:
    return brotli_source(coded), b""


def _encode_ans(content: Content, level: int) -> bytes:
    """A zstd frame of the rest, behind its size, and the words of every kind of integers."""
    parts, words = [sized(content.head)], list[bytes]()
    for kind, places in by_kind(content.entries).items():
        matrices, top = [content.integers[place] for place in places], largest_level(INTEGER_BITS[kind])
        tables = fit_tables(matrices, top)
        words.append(encode_rows(matrices, tables, top))
        parts.append(struct.pack("<IB", len(words[-1]), len(tables.frequencies)))
        parts.extend((planes([tables.frequencies], "<u2"), tables.classes.tobytes()))
    return b"".join((sized(zstd_encoded(b"".join((*parts, content.rest)), level)), *words))


def _open_ans(coded: bytes, raw_cap_bytes: int) -> tuple[ByteSource, bytes]:
    size = int.from_bytes(coded[:SIZE_BYTES], "little")
    if len(coded) < SIZE_BYTES + size:
        raise CoderError(f"{len(coded)} bytes for a frame of {size}")
    return zstd_source(coded[SIZE_BYTES : SIZE_BYTES + size], raw_cap_bytes), coded[SIZE_BYTES + size :]


def _ans_integers(source: ByteSource, behind: bytes, entries: Sequence[TensorEntry]) -> tuple[Integers, ...]:
    tensors, read = integer_entries(entries), list[tuple[list[int], RowTables, bytes]]()
    for kind, places in by_kind(entries).items():
        words, tables = struct.unpack("<IB", source.read(5))
        if not 0 < tables <= LARGEST_TABLE_COUNT:
            raise CoderError(f"{tables} tables of frequencies")
        symbols = 2 * largest_level(INTEGER_BITS[kind]) + 1
        frequencies = from_planes(source.read(2 * tables * symbols), "<u2").reshape(tables, symbols)
        rows = sum(tensors[place].scales for place in places)
        if rows > source.left:
            raise CoderError(f"{source.left} bytes for the tables of {rows} rows")
        classes = np.frombuffer(source.read(rows), np.uint8)
        row_tables = RowTables(frequencies, classes)
        row_tables.check()
        read.append((places, row_tables, behind[:words]))
        behind = behind[words:]
    if (expected := sum(section_bytes(entries)[1:])) != source.left or behind:
        raise CoderError(f"{source.left} and {len(behind)} bytes behind the integers, for tensors of {expected}")
    matrices: dict[int, Integers] = {}
    for places, row_tables, words in read:
        chosen = [tensors[place] for place in places]
        shapes = [(entry.scales, entry.shape[-1]) for entry in chosen]
        integers = decode_rows(words, row_tables, shapes, chosen[0].top)
        matrices |= zip(places, split_integers(integers.tobytes(), chosen), strict=True)
    return tuple(matrices[place] for place in range(len(tensors)))


CODINGS: Mapping[str, Coding] = MappingProxyType(
    {
        "zstd": Coding(b"HYM1", "", "zstd-{level}", _encode_zstd, _open_zstd, _plain_integers),
        "brotli": Coding(b"HYB1", "brotli", "brotli-11", _encode_brotli, _open_brotli, _plain_integers),
        "ans": Coding(b"HYA1", "constriction", "ans", _encode_ans, _open_ans, _ans_integers),
    }
)
# Every one of them, the smallest result kept.
AUTOMATIC = "auto"


def codings_of(setting: str) -> tuple[str, ...]:
    """The coders that a setting tries."""
    return tuple(CODINGS) if setting == AUTOMATIC else (setting,)


def missing_packages(setting: str) -> list[str]:
    """Packages that the coders of a setting need and that are not installed."""
    return [need for name in codings_of(setting) if (need := CODINGS[name].package) and not is_installed(need)]
