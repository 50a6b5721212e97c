"""The stored model: bytes in, bytes out. This module alone knows the format.

    magic (4) | BLAKE2b-128 of the frame (16) | one zstd frame
    frame content: header length (uint32) | header (JSON) | payload

The header is {"config": ..., "tensors": [[name, shape, kind], ...]}; the payload holds, in the header's order, all
integers (one per byte: zstd codes those better than packed ones), then all row scales (float16), all float16 and all
float32 weights. Floating point stands byte plane by byte plane, which compresses better. All little-endian.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from torch import Tensor

from reference_model.config import QuantConfig
from reference_model.quantize import (
    QuantizedTensor,
    QuantizeError,
    check_finite,
    dequantize_rows,
    largest_level,
    quantize_rows,
    tensor_kind,
)

ARTIFACT_MAGIC = b"HYM1"
DIGEST_BYTES = 16
# Bounds on what a file may ask for; the largest preset has 36 million weights.
RAW_CAP_BYTES = 1 << 28
ARTIFACT_HEADER_CAP_BYTES = 1 << 20
READ_BYTES = 1 << 20
INTEGER_BITS = {"int8": 8, "int6": 6, "int4": 4}
FLOAT_TYPES = {"float16": "<f2", "float32": "<f4"}
TENSOR_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")


# Takes the header and the shapes by name.
HeaderCheck: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], None]


class ArtifactError(ValueError):
    """Bytes that are no artifact of ours, or weights that cannot become one."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the header: where it stands in the payload follows from the entries before it."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def scales(self) -> int:
        """Row scales; none for floating point."""
        return math.prod(self.shape[:-1]) if self.kind in INTEGER_BITS else 0


def pack(state: Mapping[str, Tensor], model_config_json: str, quant: QuantConfig) -> bytes:
    """Quantize and compress weights; equal input gives equal bytes.

    Args:
        state: name -> weight, each stored once (a tied one under one name).
        model_config_json: a JSON object that rebuilds the model; unpacking gives it back.
        quant: bits, scales, threshold, compression level.

    Raises:
        ArtifactError: a weight is not floating point or not finite, a name is unusable, or two are one tensor.
    """
    _refuse_shared(state)
    weights = {name: weight.detach().cpu().float() for name, weight in state.items()}
    entries = sorted((_entry(name, weight, quant) for name, weight in weights.items()), key=_packing_order)
    quantized: list[QuantizedTensor] = []
    floats: dict[str, list[Tensor]] = {kind: [] for kind in FLOAT_TYPES}
    for entry in entries:
        if entry.kind in INTEGER_BITS:
            quantized.append(_quantized(entry, weights[entry.name], quant))
        else:
            floats[entry.kind].append(weights[entry.name])
    tensors = [[entry.name, list(entry.shape), entry.kind] for entry in entries]
    header = json.dumps({"config": json.loads(model_config_json), "tensors": tensors}, separators=(",", ":")).encode()
    parts = [struct.pack("<I", len(header)), header]
    parts.extend(tensor.values.numpy().tobytes() for tensor in quantized)
    parts.append(_planes([tensor.scale for tensor in quantized], "<f2"))
    parts.extend(_planes(floats[kind], code) for kind, code in FLOAT_TYPES.items())
    frame = zstandard.ZstdCompressor(level=quant.zstd_level).compress(b"".join(parts))
    return ARTIFACT_MAGIC + _digest(frame) + frame


def accept_any(_header: Mapping[str, Any], _shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Expect nothing of an artifact."""


def unpack(
    blob: bytes, raw_cap_bytes: int = RAW_CAP_BYTES, expect: HeaderCheck = accept_any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check and decode an artifact.

    Nothing is allocated for sizes that the file only claims: each is checked against the others and the cap first,
    and decompression stops where they end.

    Args:
        blob: the whole artifact.
        raw_cap_bytes: limit of its decompressed size.
        expect: called with the header and the shapes by name before any weight is read; raises to refuse them.

    Returns:
        The header, and name -> float32 weight.

    Raises:
        ArtifactError: anything is wrong with it.
    """
    start = len(ARTIFACT_MAGIC) + DIGEST_BYTES
    if len(blob) <= start or blob[: len(ARTIFACT_MAGIC)] != ARTIFACT_MAGIC:
        raise ArtifactError(f"not an artifact: {len(blob)} bytes that do not begin with {ARTIFACT_MAGIC!r}")
    frame = blob[start:]
    if _digest(frame) != blob[len(ARTIFACT_MAGIC) : start]:
        raise ArtifactError("damaged artifact: the checksum does not match")
    try:
        header, entries, payload = _read_frame(frame, raw_cap_bytes, expect)
        return header, dict(_decode(entries, payload))
    except (zstandard.ZstdError, QuantizeError) as error:
        raise ArtifactError(f"damaged artifact: {error}") from error


def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame, digest_size=DIGEST_BYTES).digest()


def _refuse_shared(state: Mapping[str, Tensor]) -> None:
    owners: dict[tuple[object, ...], str] = {}
    for name, weight in state.items():
        key = (weight.device, weight.data_ptr(), weight.shape, weight.stride())
        if weight.numel() and owners.setdefault(key, name) != name:
            raise ArtifactError(f"{name} and {owners[key]} are one tensor: store it under one name")


def _entry(name: str, weight: Tensor, quant: QuantConfig) -> TensorEntry:
    try:
        check_finite(weight)
    except QuantizeError as error:
        raise ArtifactError(f"{name}: {error}") from error
    return _checked_entry(name, list(weight.shape), tensor_kind(name, weight, quant))


def _packing_order(entry: TensorEntry) -> tuple[str, str, str]:
    """Tensors of one role in different layers become neighbours: their statistics are alike."""
    return entry.kind, re.sub(r"\d+", "", entry.name), entry.name


def _quantized(entry: TensorEntry, weight: Tensor, quant: QuantConfig) -> QuantizedTensor:
    try:
        return quantize_rows(weight, quant.bits, scale_floor=quant.scale_floor, clip_search=quant.clip_search)
    except QuantizeError as error:
        raise ArtifactError(f"{entry.name}: {error}") from error


def _planes(tensors: Iterable[Tensor], code: str) -> bytes:
    """Numbers of several tensors, first bytes of all, then second bytes of all, ..."""
    numbers = b"".join(tensor.numpy().astype(code).tobytes() for tensor in tensors)
    return np.frombuffer(numbers, np.uint8).reshape(-1, np.dtype(code).itemsize).T.tobytes()


def _numbers(planes: memoryview, code: str) -> npt.NDArray[np.floating[Any]]:
    """The inverse of `_planes`."""
    rows = np.frombuffer(planes, np.uint8).reshape(np.dtype(code).itemsize, -1)
    return np.frombuffer(rows.T.tobytes(), code)


def _read_frame(
    frame: bytes, raw_cap_bytes: int, expect: HeaderCheck
) -> tuple[dict[str, Any], list[TensorEntry], memoryview]:
    raw_bytes = zstandard.get_frame_parameters(frame).content_size
    if raw_bytes > raw_cap_bytes:  # a frame that does not state its size gives 2^64 - 1
        raise ArtifactError(f"oversized artifact: {raw_bytes} bytes decompressed, the limit is {raw_cap_bytes}")
    if (end := _frame_end(frame)) != len(frame):
        raise ArtifactError(f"damaged artifact: {len(frame)} bytes hold a frame of {end}")
    # A frame of known size has no window beyond it, but the format's own smallest limit is 1 KiB.
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(raw_cap_bytes, 1024))
    with decompressor.stream_reader(frame) as reader:
        (header_bytes,) = struct.unpack("<I", _read_exactly(reader, 4))
        if header_bytes > min(ARTIFACT_HEADER_CAP_BYTES, raw_bytes):
            raise ArtifactError(f"damaged artifact: a header of {header_bytes} bytes")
        header, entries = _parse_header(_read_exactly(reader, header_bytes))
        expect(header, {entry.name: entry.shape for entry in entries})
        payload_bytes = raw_bytes - 4 - header_bytes
        if (expected := sum(_section_bytes(entries))) != payload_bytes:
            raise ArtifactError(f"damaged artifact: {payload_bytes} bytes for tensors of {expected}")
        payload = _read_exactly(reader, payload_bytes)
        reader.read(1)  # on to the frame's end, where zstd itself refuses blocks that hold more than it states
    return header, entries, memoryview(payload)


def _frame_end(frame: bytes) -> int:
    """Length of the first zstd frame (RFC 8878, 3.1.1), from its block headers: the library reads over what follows."""
    place, last = zstandard.frame_header_size(frame), False
    while not last and place < len(frame):
        block = int.from_bytes(frame[place : place + 3], "little")
        last, is_run = bool(block & 1), block >> 1 & 3 == 1
        place += 3 + (1 if is_run else block >> 3)
    return place + 4 * zstandard.get_frame_parameters(frame).has_checksum


def _read_exactly(reader: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    """Read in steps, so that a stream that ends early costs no more than it holds."""
    parts: list[bytes] = []
    while size:
        part = reader.read(min(size, READ_BYTES))
        if not part:
            raise ArtifactError(f"damaged artifact: ends {size} bytes early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _parse_header(text: bytes) -> tuple[dict[str, Any], list[TensorEntry]]:
    try:
        header = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
        entries = [_checked_entry(*tensor) for tensor in header["tensors"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"damaged artifact: unreadable header ({error})") from error
    if set(header) != {"config", "tensors"} or not isinstance(header["config"], dict):
        raise ArtifactError("damaged artifact: the header is not an object of config and tensors")
    if len({entry.name for entry in entries}) < len(entries):
        raise ArtifactError("damaged artifact: a name stands twice")
    return header, entries


def _refuse_constant(text: str) -> NoReturn:
    raise ArtifactError(f"{text} is no number")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ArtifactError("a key stands twice")
    return dict(pairs)


def _checked_entry(name: object, shape: object, kind: object) -> TensorEntry:
    """Refuse names, kinds and shapes that no model of ours has."""
    if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
        raise ArtifactError(f"tensor name {str(name)[:200]!r} is not made of letters, digits, _ and dots")
    if not isinstance(kind, str) or kind not in (*INTEGER_BITS, *FLOAT_TYPES):
        raise ArtifactError(f"{name}: unknown kind {str(kind)[:200]!r}")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
        raise ArtifactError(f"{name}: {str(shape)[:200]} is no shape")
    entry = TensorEntry(name, tuple(shape), kind)
    if math.prod(size or 1 for size in shape) > RAW_CAP_BYTES:
        raise ArtifactError(f"{name}: {str(shape)[:200]} is too large")
    if kind in INTEGER_BITS and (len(shape) < 2 or not entry.numel):
        raise ArtifactError(f"{name}: {kind} of shape {shape} has no rows")
    return entry


def _section_bytes(entries: Sequence[TensorEntry]) -> tuple[int, int, int, int]:
    """Bytes of the payload's sections: integers, scales, float16, float32."""
    integers = sum(entry.numel for entry in entries if entry.kind in INTEGER_BITS)
    half, single = (sum(entry.numel for entry in entries if entry.kind == kind) for kind in FLOAT_TYPES)
    return integers, 2 * sum(entry.scales for entry in entries), 2 * half, 4 * single


def _decode(entries: Sequence[TensorEntry], payload: memoryview) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in float32, in the header's order."""
    ends = list(itertools.accumulate(_section_bytes(entries)))
    integers = np.frombuffer(payload[: ends[0]], np.int8)
    scales = _numbers(payload[ends[0] : ends[1]], "<f2")
    floats = {"float16": _numbers(payload[ends[1] : ends[2]], "<f2"), "float32": _numbers(payload[ends[2] :], "<f4")}
    for entry in entries:
        if entry.kind in INTEGER_BITS:
            values, integers = integers[: entry.numel], integers[entry.numel :]
            scale, scales = scales[: entry.scales], scales[entry.scales :]
            yield entry.name, _decode_rows(entry, values, scale)
        else:
            section = floats[entry.kind]
            numbers, floats[entry.kind] = section[: entry.numel], section[entry.numel :]
            tensor = torch.from_numpy(numbers.astype(np.float32)).view(entry.shape)
            check_finite(tensor)
            yield entry.name, tensor


def _decode_rows(entry: TensorEntry, values: npt.NDArray[np.int8], scale: npt.NDArray[np.floating[Any]]) -> Tensor:
    top = largest_level(INTEGER_BITS[entry.kind])
    if int(values.min()) < -top or int(values.max()) > top:
        raise ArtifactError(f"{entry.name}: integers beyond {top}")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ArtifactError(f"{entry.name}: a scale that is not finite and positive")
    rows = torch.from_numpy(values.copy()).view(entry.shape)
    scale_R = torch.from_numpy(scale.astype(np.float16)).view(entry.shape[:-1])
    return dequantize_rows(QuantizedTensor(rows, scale_R, INTEGER_BITS[entry.kind], torch.float32))
