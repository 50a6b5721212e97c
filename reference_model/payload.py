"""What an artifact holds before it is coded: a header, the integers of each tensor, and the rest in sections.

    header length (uint32) | header (JSON) | integers | row scales (float16) | float16 weights | float32 weights

The header is {"config": ..., "tensors": [[name, shape, kind], ...]}; every section follows its order. One byte holds
one integer: compressors code those better than packed ones. Floating point stands byte plane by byte plane, which
compresses better. All little-endian.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reference_model.ans import Integers
from reference_model.coders import SIZE_FORMAT, CoderError
from reference_model.quantize import QuantizedTensor, check_finite, dequantize_rows, largest_level

# Bounds on what a file may ask for; the largest preset has 36 million weights.
RAW_CAP_BYTES = 1 << 28
ARTIFACT_HEADER_CAP_BYTES = 1 << 20
INTEGER_BITS = {"int8": 8, "int6": 6, "int4": 4}
FLOAT_TYPES = {"float16": "<f2", "float32": "<f4"}
TENSOR_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")


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
    def is_integer(self) -> bool:
        """Whether it is stored in integers."""
        return self.kind in INTEGER_BITS

    @property
    def scales(self) -> int:
        """Row scales; none for floating point."""
        return math.prod(self.shape[:-1]) if self.is_integer else 0

    @property
    def bits(self) -> int:
        """Of its integers."""
        return INTEGER_BITS[self.kind]

    @property
    def top(self) -> int:
        """Its largest integer."""
        return largest_level(self.bits)


@dataclass(frozen=True)
class Content:
    """Everything that is stored.

    Attributes:
        head: The header's text.
        entries: Its tensors.
        integers: int8, rows and columns of each tensor in integers, in the header's order.
        rest: The sections behind the integers.
    """

    head: bytes
    entries: tuple[TensorEntry, ...]
    integers: tuple[Integers, ...]
    rest: bytes

    def plain(self) -> bytes:
        """All of it as it stands above."""
        return b"".join((sized(self.head), *(matrix.tobytes() for matrix in self.integers), self.rest))


def sized(content: bytes) -> bytes:
    """Bytes behind their number."""
    return struct.pack(SIZE_FORMAT, len(content)) + content


def integer_entries(entries: Iterable[TensorEntry]) -> list[TensorEntry]:
    """Those stored in integers."""
    return [entry for entry in entries if entry.is_integer]


def by_kind(entries: Iterable[TensorEntry]) -> dict[str, list[int]]:
    """Kinds of integers in order of appearance, and the places of their tensors among those in integers."""
    kinds: dict[str, list[int]] = {}
    for place, entry in enumerate(integer_entries(entries)):
        kinds.setdefault(entry.kind, []).append(place)
    return kinds


def checked_entry(name: object, shape: object, kind: object) -> TensorEntry:
    """Refuse names, kinds and shapes that no model of ours has; raises CoderError."""
    if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
        raise CoderError(f"tensor name {str(name)[:200]!r} is not made of letters, digits, _ and dots")
    if not isinstance(kind, str) or kind not in (*INTEGER_BITS, *FLOAT_TYPES):
        raise CoderError(f"{name}: unknown kind {str(kind)[:200]!r}")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
        raise CoderError(f"{name}: {str(shape)[:200]} is no shape")
    entry = TensorEntry(name, tuple(shape), kind)
    if math.prod(size or 1 for size in shape) > RAW_CAP_BYTES:
        raise CoderError(f"{name}: {str(shape)[:200]} is too large")
    if entry.is_integer and (len(shape) < 2 or not entry.numel):
        raise CoderError(f"{name}: {kind} of shape {shape} has no rows")
    return entry


def parse_header(text: bytes) -> tuple[dict[str, Any], tuple[TensorEntry, ...]]:
    """The header and its tensors; raises CoderError where it is none."""
    try:
        header = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
        entries = tuple(checked_entry(*tensor) for tensor in header["tensors"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CoderError(f"unreadable header ({error})") from error
    if set(header) != {"config", "tensors"} or not isinstance(header["config"], dict):
        raise CoderError("the header is not an object of config and tensors")
    if len({entry.name for entry in entries}) < len(entries):
        raise CoderError("a name stands twice")
    return header, entries


def _refuse_constant(text: str) -> NoReturn:
    raise CoderError(f"{text} is no number")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise CoderError("a key stands twice")
    return dict(pairs)


def planes(arrays: Iterable[npt.NDArray[Any]], code: str) -> bytes:
    """Numbers of several arrays, first bytes of all, then second bytes of all, ..."""
    numbers = b"".join(array.astype(code).tobytes() for array in arrays)
    return np.frombuffer(numbers, np.uint8).reshape(-1, np.dtype(code).itemsize).T.tobytes()


def from_planes(content: bytes | memoryview, code: str) -> npt.NDArray[Any]:
    """The inverse of `planes`, in one vector."""
    rows = np.frombuffer(content, np.uint8).reshape(np.dtype(code).itemsize, -1)
    return np.frombuffer(rows.T.tobytes(), code)


def section_bytes(entries: Sequence[TensorEntry]) -> tuple[int, int, int, int]:
    """Bytes of the sections: integers, scales, float16, float32."""
    integers = sum(entry.numel for entry in entries if entry.is_integer)
    half, single = (sum(entry.numel for entry in entries if entry.kind == kind) for kind in FLOAT_TYPES)
    return integers, 2 * sum(entry.scales for entry in entries), 2 * half, 4 * single


def split_integers(content: bytes, entries: Iterable[TensorEntry]) -> tuple[Integers, ...]:
    """Rows and columns of each tensor in integers, from their bytes one after the other."""
    numbers, place, matrices = np.frombuffer(content, np.int8), 0, list[Integers]()
    for entry in integer_entries(entries):
        matrices.append(numbers[place : place + entry.numel].reshape(entry.scales, -1))
        place += entry.numel
    return tuple(matrices)


def decoded_tensors(content: Content) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in float32, in the header's order.

    Raises:
        CoderError: integers beyond their largest, or a scale that is not finite and positive.
        QuantizeError: A weight that is not finite.
    """
    ends = list(itertools.accumulate(section_bytes(content.entries)[1:]))
    rest, matrices = memoryview(content.rest), iter(content.integers)
    scales = from_planes(rest[: ends[0]], "<f2")
    floats = {
        "float16": from_planes(rest[ends[0] : ends[1]], "<f2"),
        "float32": from_planes(rest[ends[1] :], "<f4"),
    }
    for entry in content.entries:
        if entry.is_integer:
            scale, scales = scales[: entry.scales], scales[entry.scales :]
            yield entry.name, _decoded_rows(entry, next(matrices), scale)
        else:
            section = floats[entry.kind]
            numbers, floats[entry.kind] = section[: entry.numel], section[entry.numel :]
            tensor = torch.from_numpy(numbers.astype(np.float32)).view(entry.shape)
            check_finite(tensor)
            yield entry.name, tensor


def _decoded_rows(entry: TensorEntry, values_RC: Integers, scale: npt.NDArray[np.floating[Any]]) -> Tensor:
    if int(values_RC.min()) < -entry.top or int(values_RC.max()) > entry.top:
        raise CoderError(f"{entry.name}: integers beyond {entry.top}")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise CoderError(f"{entry.name}: a scale that is not finite and positive")
    rows = torch.from_numpy(values_RC.copy()).view(entry.shape)
    scale_R = torch.from_numpy(scale.astype(np.float16)).view(entry.shape[:-1])
    return dequantize_rows(QuantizedTensor(rows, scale_R, entry.bits, torch.float32))


def integer_matrices(entries: Sequence[TensorEntry], tensors: Mapping[str, QuantizedTensor]) -> tuple[Integers, ...]:
    """Rows and columns of each tensor in integers."""
    return tuple(tensors[entry.name].values.numpy().reshape(entry.scales, -1) for entry in integer_entries(entries))
