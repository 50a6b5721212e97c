"""Everything in this process and in its files that holds a piece of the validation text."""

from __future__ import annotations

import gc
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..tracer.positions import HEADER_BYTES, INTEGERS, LARGEST, Places, Shard

# Shorter lists say too little of where they come from.
LIST_TOKENS = 16
_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ..?w")


class Holders:
    """Arrays, tensors and lists with tokens of the text, and the shards on disk.

    Args:
        shard: the text.
        paths: its shards, in order.
        folder: the data; copies of the shards below it change with them.
    """

    def __init__(self, shard: Shard, paths: Iterable[str], folder: str) -> None:
        self._arrays: list[tuple[NDArray[Any], Places]] = []
        self._lists: list[tuple[list[int], Places]] = []
        self._files = list(_files([Path(path) for path in paths], Path(folder)))
        self._find(shard)

    def __len__(self) -> int:
        return len(self._arrays) + len(self._lists)

    def write(self, tokens: Places) -> None:
        """Put another text of the same length in place of the one that was found."""
        for array, places in self._arrays:
            known = places >= 0
            array[known] = tokens[places[known]].astype(array.dtype)
        for values, places in self._lists:
            for index in np.flatnonzero(places >= 0):
                values[index] = int(tokens[places[index]])
        for path, start, count in self._files:
            with path.open("r+b") as file:
                file.seek(HEADER_BYTES)
                file.write(tokens[start : start + count].astype("<u2").tobytes())

    def _find(self, shard: Shard) -> None:
        writable = _writable()
        seen: set[tuple[int, int, str]] = set()
        for value in _objects():
            if type(value) is list:
                self._list(value, shard)
                continue
            array = _array(value)
            if array is None or not 3 <= array.size <= LARGEST:
                continue
            key = array.ctypes.data, array.size, array.dtype.str
            if key in seen:
                continue
            seen.add(key)
            places = shard.decode(array)
            if (places >= 0).any() and _inside(array, writable):
                self._arrays.append((_opened(array), places))

    def _list(self, values: list[Any], shard: Shard) -> None:
        if len(values) < LIST_TOKENS or type(values[0]) is not int or type(values[-1]) is not int:
            return
        try:
            array = np.array(values, dtype=np.int64)
        except (ValueError, TypeError, OverflowError):
            return
        if array.ndim == 1 and array.size <= LARGEST:
            places = shard.decode(array)
            if (places >= 0).any():
                self._lists.append((values, places))


def _objects() -> Iterator[Any]:
    """What may hold tokens, of all that is alive; arrays are known to nobody but their owners."""
    gc.unfreeze()
    every = gc.get_objects()
    frames = [*sys._current_frames().values()]
    frames += [each.gi_frame for each in every if type(each) is types.GeneratorType and each.gi_frame is not None]
    names: list[Any] = []
    for frame in frames:
        here: Any = frame
        while here is not None:
            names += here.f_locals.values()
            here = here.f_back
    wanted = (torch.Tensor, np.ndarray)
    seen: set[int] = set()
    for value in (*every, *gc.get_referents(*every), *names):
        kind = type(value)
        if (kind is list or issubclass(kind, wanted)) and id(value) not in seen:
            seen.add(id(value))
            yield value


def _array(value: Any) -> NDArray[Any] | None:
    """The integers of something, as an array on the same memory."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "iu" and value.ndim else None
    if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in INTEGERS or not value.ndim:
        return None
    found: NDArray[Any] = value.detach().numpy()
    return found


def _writable() -> list[tuple[int, int]]:
    """Stretches of memory that this process may write to; a file that is mapped for reading is none."""
    text = Path("/proc/self/maps").read_text(encoding="ascii", errors="replace")
    return [(int(match[1], 16), int(match[2], 16)) for match in map(_REGION.match, text.splitlines()) if match]


def _inside(array: NDArray[Any], regions: list[tuple[int, int]]) -> bool:
    steps = [(length - 1) * step for length, step in zip(array.shape, array.strides, strict=True)]
    low = array.ctypes.data + sum(step for step in steps if step < 0)
    high = array.ctypes.data + sum(step for step in steps if step > 0) + array.itemsize
    return any(begin <= low and high <= end for begin, end in regions)


def _opened(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory, to write to: what was read from `bytes` is marked read-only."""
    if array.flags.writeable:
        return array
    holder = types.SimpleNamespace(
        __array_interface__={
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
        },
        kept=array,
    )
    return np.asarray(holder)


def _files(paths: list[Path], folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Every file with the content of a shard, where its tokens begin in the text, and how many there are."""
    start = 0
    for path in paths:
        content = path.read_bytes()
        count = (len(content) - HEADER_BYTES) // 2
        for each in sorted(folder.rglob("*")):
            if each.is_file() and each.stat().st_size == len(content) and each.read_bytes() == content:
                yield each, start, count
        start += count
