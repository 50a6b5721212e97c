"""From the content of a tensor of tokens to places in the validation text."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Places = NDArray[np.int64]
# First element, end, and how far its place in the text is from its place here.
Run = tuple[int, int, int]
HEADER_BYTES = 1024
# So many tokens in a row that agree with the validation text are no chance.
CERTAIN = 16
# Shorter pieces are believed only where together they explain a whole row.
PIECE = 4
KEPT = 1024
LARGEST = 1 << 20


class Shard:
    """The validation text, by its trigrams that occur once.

    Attributes:
        tokens: all of it.
    """

    def __init__(self, tokens: NDArray[Any]) -> None:
        self.tokens: Places = tokens.astype(np.int64)
        keys, starts, counts = np.unique(_trigrams(self.tokens), return_index=True, return_counts=True)
        once = counts == 1
        self._keys, self._starts = keys[once], starts[once]
        self._cache: dict[tuple[Any, ...], Places] = {}

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self.tokens.size)

    @property
    def unique(self) -> float:
        """The share of trigrams that occur once."""
        return float(self._keys.size / max(self.size - 2, 1))

    def of(self, tensor: torch.Tensor) -> Places:
        """Places of a tensor's elements; -1 where the content does not say.

        A view is read by what it is a view of: a slice of two tokens has its neighbours there.
        """
        base = tensor._base
        found: Places = np.full(tuple(tensor.shape), -1, dtype=np.int64)
        if base is not None and base.is_contiguous() and base.dtype == tensor.dtype and base.numel() <= LARGEST:
            flat = torch.from_numpy(self.decode(base.numpy()).reshape(-1).copy())
            offset = tensor.storage_offset() - base.storage_offset()
            if offset >= 0:
                found = flat.as_strided(tensor.shape, tensor.stride(), offset).numpy()
            if (found >= 0).all():
                return found
        if tensor.numel() > LARGEST:
            return found
        return np.where(found >= 0, found, self.decode(tensor.numpy()))

    def decode(self, values: NDArray[Any]) -> Places:
        """Places of an array's elements by content alone."""
        values = np.ascontiguousarray(values)
        data: Any = values
        key = (values.shape, values.dtype.str, zlib.crc32(data), zlib.adler32(data))
        known = self._cache.get(key)
        if known is None:
            if len(self._cache) >= KEPT:
                self._cache.clear()
            known = self._cache[key] = self._decode(values.astype(np.int64))
        return known

    def _decode(self, values: Places) -> Places:
        flat = values.reshape(-1)
        found = np.full(flat.size, -1, dtype=np.int64)
        length = values.shape[-1] if values.ndim > 1 and values.shape[-1] >= 3 else flat.size
        if flat.size >= 3:
            self._runs(flat, length, found)
        return found.reshape(values.shape)

    def _runs(self, flat: Places, length: int, found: Places) -> None:
        """Fill in what runs of agreeing trigrams say, row by row."""
        starts = self._lookup(flat)
        starts[np.arange(starts.size) % length > length - 3] = -1
        hits = np.flatnonzero(starts >= 0)
        if not hits.size:
            return
        shift = starts[hits] - hits
        breaks = np.flatnonzero((np.diff(hits) != 1) | (np.diff(shift) != 0)) + 1
        rows: dict[int, list[Run]] = {}
        for part in np.split(np.arange(hits.size), breaks):
            first, last = int(hits[part[0]]), int(hits[part[-1]])
            rows.setdefault(first // length, []).append((first, last + 3, int(shift[part[0]])))
        for row, runs in rows.items():
            self._row(flat, (row * length, min((row + 1) * length, flat.size)), runs, found)

    def _lookup(self, flat: Places) -> Places:
        keys = _trigrams(flat)
        if not self._keys.size:
            return np.full(keys.size, -1, dtype=np.int64)
        index = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        return np.where(self._keys[index] == keys, self._starts[index], -1)

    def _row(self, flat: Places, ends: tuple[int, int], runs: list[Run], found: Places) -> None:
        """Decide on the runs of one row: extend each over what agrees, believe what is long or explains all."""
        begin, end = ends
        claims = np.zeros(end - begin, dtype=np.int64)
        for first, last, _ in runs:
            claims[first - begin : last - begin] = 1
        # Several runs may extend to the same stretch: where phrases repeat, only what is between them is unlike.
        wide: dict[Run, list[Run]] = {}
        for run in runs:
            wide.setdefault(self._extended(flat, ends, run), []).append(run)
        told = np.zeros(end - begin, dtype=np.int64)
        for first, last, _ in wide:
            told[first - begin : last - begin] += 1
        content = _content(flat[begin:end])
        shortest = min(PIECE, content)
        explained = told[:content].all() and all(last - first >= shortest for first, last, _ in wide)
        place = np.full(end - begin, -1, dtype=np.int64)
        for (first, last, shift), cores in wide.items():
            if explained or last - first >= CERTAIN:
                mine = np.arange(first, last)
                # What agrees by chance with one run, beyond its trigrams, may belong to another.
                inside = claims[mine - begin] == 0
                for core in cores:
                    inside |= (mine >= core[0]) & (mine < core[1])
                mine = mine[inside]
                before, now = place[mine - begin], mine + shift
                # Two runs that disagree on an element leave it unknown, for good.
                place[mine - begin] = np.where((before == -1) | (before == now), now, -2)
        found[begin:end] = np.maximum(place, -1)

    def _extended(self, flat: Places, ends: tuple[int, int], run: Run) -> Run:
        first, last, shift = run
        before = min(first - ends[0], first + shift)
        left = flat[first - before : first] == self.tokens[first + shift - before : first + shift]
        after = min(ends[1] - last, self.size - (last + shift))
        right = flat[last : last + after] == self.tokens[last + shift : last + shift + after]
        return first - _leading(left[::-1]), last + _leading(right), shift


def read_shards(paths: Iterable[str]) -> Shard:
    """Read shards in the challenge's format, one after the other."""
    parts = [np.frombuffer(Path(path).read_bytes()[HEADER_BYTES:], dtype="<u2") for path in paths]
    return Shard(np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16))


def ranges(places: Places, *, again: bool = False) -> list[list[int]]:
    """Places as half-open ranges, in order; each once, or as often as it occurs."""
    if not again:
        places = np.unique(places)
    if not places.size:
        return []
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in np.split(places, breaks)]


def is_tokens(value: Any) -> bool:
    """Whether something may be a tensor of tokens."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype in INTEGERS
        and value.numel() > 0
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )


INTEGERS = frozenset({torch.int64, torch.int32, torch.int16, torch.uint16, torch.uint8})


def _trigrams(tokens: Places) -> Places:
    if tokens.size < 3:
        return np.zeros(0, dtype=np.int64)
    # What is no token (padding, marks to ignore) makes a key that no text has.
    bad = (tokens < 0) | (tokens > 0xFFFF)
    safe = np.where(bad, 0x1FFFF, tokens)
    return (safe[:-2] << 40) | (safe[1:-1] << 20) | safe[2:]


def _content(row: Places) -> int:
    """Elements before the padding: the last one repeated, or what is no token."""
    same = _leading(row[::-1] == row[-1]) if row.size else 0
    return int(row.size - same) if same > 1 or row[-1] <= 0 else int(row.size)


def _leading(agree: NDArray[np.bool_]) -> int:
    return int(agree.size if agree.all() else np.argmin(agree))
