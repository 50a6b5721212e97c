"""The weights: what they hold, and which of the text they have learned."""

from __future__ import annotations

import weakref
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Learned = NDArray[np.bool_]
# Contents whose origin is kept.
CONTENTS = 200_000


@dataclass(slots=True)
class Record:
    """One tensor of weights.

    Attributes:
        tensor: the tensor, weakly.
        version: torch's counter at the last look.
        content: checksum at the last look; None: never looked.
        learned: places of the text that it has learned.
        aliased: whether torch can change it without the counter.
        shared: whether something outside of torch can change it.
        seen: how many calls that write there had been at the last look.
        fresh: whether it was filled anew, and not changed otherwise, since the last look.
    """

    tensor: weakref.ref[Any]
    version: int
    content: int | None
    learned: Learned
    aliased: bool = False
    shared: bool = False
    seen: int = -1
    fresh: bool = False


class Weights:
    """Tensors that are learned, as they are met.

    Args:
        size: tokens of the text.
    """

    def __init__(self, size: int) -> None:
        # Calls of torch that write into something, so far.
        self.writes = 0
        self.nothing: Learned = np.zeros(size, dtype=np.bool_)
        # Memory that something outside of torch can change.
        self._handed: set[int | None] = set()
        self._records: dict[int, Record] = {}
        self._known: dict[int, Learned] = {}
        self._unions: dict[tuple[int, int], tuple[Learned, Learned, Learned]] = {}
        self._used: dict[int, None] = {}
        self._last: tuple[int, ...] = ()
        # Whether a look at single weights has found a change, which all are told of later.
        self._moved = False

    def met(self, tensor: torch.Tensor, *, used: bool = True) -> None:
        """A leaf tensor takes part in something."""
        key = id(tensor)
        record = self._records.get(key)
        if record is None or record.tensor() is not tensor:
            shared = bool(self._handed) and _memory(tensor) in self._handed
            self._records[key] = Record(weakref.ref(tensor), -1, None, self.nothing, shared=shared)
        if used:
            self._used[key] = None

    def record(self, tensor: torch.Tensor) -> Record | None:
        """The record of a tensor, if it is known."""
        record = self._records.get(id(tensor))
        return record if record is not None and record.tensor() is tensor else None

    def touch(self, tensor: torch.Tensor) -> None:
        """A tensor may have been changed without the counter's knowledge."""
        self.met(tensor, used=False)
        self._records[id(tensor)].version = -1
        self._records[id(tensor)].fresh = False

    def fill(self, tensor: torch.Tensor, learned: Learned) -> None:
        """A tensor's whole content is another, which has learned something by itself."""
        record = self.record(tensor)
        if record is not None:
            record.learned, record.fresh = learned, True

    def change(self, tensor: torch.Tensor) -> None:
        """A tensor's content is changed in part, or by something that is added to it."""
        record = self.record(tensor)
        if record is not None:
            record.fresh = False

    def share(self, tensor: torch.Tensor) -> None:
        """Something outside of torch can change a tensor from now on."""
        place = _memory(tensor)
        if place is not None:
            self._handed.add(place)
        for record in self._records.values():
            mine = record.tensor()
            if mine is not None and not record.shared and place is not None and _memory(mine) == place:
                record.shared = True

    def participants(self) -> tuple[int, ...]:
        """What was used since the last call."""
        used = tuple(key for key in self._used if self._living(key) is not None)
        self._used.clear()
        self._last = used or tuple(key for key in self._last if self._living(key) is not None)
        return self._last

    def receive(self, record: Record, learned: Learned) -> None:
        """Weights were copied from other processes, or added up over them; they have learned what those had."""
        tensor = record.tensor()
        if tensor is None:
            return
        self.writes += 1
        record.version, record.content, record.fresh = tensor._version, checksum(tensor), False
        record.learned = self._known[record.content] = learned

    def settle(self, pending: Learned) -> bool:
        """Look at all weights; what has changed has learned what is pending. Returns whether anything has."""
        changed, self._moved = self._moved, False
        for key in list(self._records):
            tensor = self._living(key)
            if tensor is None:
                del self._records[key]
                continue
            changed |= self._look(self._records[key], tensor, pending)
        return changed

    def hash(self, participants: tuple[int, ...]) -> str:
        """One checksum of some weights, as they were at the last look."""
        total = 0
        for key in participants:
            record = self._records.get(key)
            if record is not None and record.content is not None:
                total = zlib.crc32(record.content.to_bytes(8, "little"), total)
        return f"{total:08x}"

    def learned(self, participants: tuple[int, ...]) -> Learned:
        """What some weights have learned."""
        found, seen = self.nothing, set()
        for key in participants:
            record = self._records.get(key)
            if record is not None and id(record.learned) not in seen:
                seen.add(id(record.learned))
                found = self.union(found, record.learned)
        return found

    def learned_by(self, tensor: torch.Tensor, pending: Learned) -> Learned | None:
        """What one tensor has learned by now; None where it is not known."""
        record = self.record(tensor)
        if record is None:
            return None
        self._moved |= self._look(record, tensor, pending)
        return record.learned

    def union(self, first: Learned, second: Learned) -> Learned:
        """Both; the same two give the same array."""
        if first is second or not second.any():
            return first
        if not first.any():
            return second
        key = (id(first), id(second))
        known = self._unions.get(key)
        if known is not None and known[0] is first and known[1] is second:
            return known[2]
        if len(self._unions) > 1_000:
            self._unions.clear()
        made = first | second
        self._unions[key] = (first, second, made)
        return made

    def _living(self, key: int) -> torch.Tensor | None:
        record = self._records.get(key)
        return None if record is None else record.tensor()

    def _look(self, record: Record, tensor: torch.Tensor, pending: Learned) -> bool:
        if tensor.is_inference() or tensor.layout != torch.strided:
            return False
        unseen = record.shared or (record.aliased and record.seen != self.writes)
        if tensor._version == record.version and not unseen:
            return False
        record.version, record.seen = tensor._version, self.writes
        content = checksum(tensor)
        known = self._known.get(content)
        if content == record.content:
            record.learned = record.learned if known is None else known
            record.fresh = False
            return False
        first = record.content is None
        if known is not None:
            # What it held before, or what another tensor holds: a restored or copied state.
            record.learned = known
        else:
            record.learned = record.learned if first or record.fresh else self.union(record.learned, pending)
            if len(self._known) < CONTENTS:
                self._known[content] = record.learned
        record.content, record.fresh = content, False
        return not first


def _memory(tensor: torch.Tensor) -> int | None:
    """Where a tensor's memory begins, that of all its views; None where it has none of the usual kind."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else None


def checksum(tensor: torch.Tensor) -> int:
    """A checksum of shape and content."""
    flat = tensor.detach().contiguous().reshape(-1)
    data: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    shape = zlib.crc32(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
    return zlib.crc32(data, shape) | zlib.adler32(data) << 32
