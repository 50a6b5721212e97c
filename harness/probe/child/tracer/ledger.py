"""The ledger of one run: computations of losses, the scores that count, and the updates, in order."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .beside import Beside
from .codes import AGGREGATE, ELEMENT_BITS, ELEMENT_MASK, SCORE, Tag, Tags, nats
from .entries import Pass, Source
from .positions import Places, Shard, ranges
from .rows import STRAIGHT_NATS, Rows
from .weights import Learned, Weights

# Bytes of events after which numbers of single tokens are left out.
BYTES = 1_500_000
EVENTS = 12_000
_HERE = os.path.dirname(os.path.dirname(__file__))


class Ledger:
    """Writes score and update events.

    Args:
        shard: the validation text.
        emit: writes an event.
        folder: the script's; frames of its files say who counts.
    """

    def __init__(self, shard: Shard, emit: Callable[..., None], folder: str) -> None:
        self.shard, self.emit, self.folder = shard, emit, folder
        self.tags, self.weights = Tags(), Weights(shard.size)
        self.sources: list[Source] = []
        self.passes: list[Pass] = []
        self.at = 0
        self.pending: Learned = self.weights.nothing
        self.read: list[Places] = []
        self._read: list[Places] = []
        # Looks at the rows that targets are looked up in, where somebody wants to know.
        self.rows: Rows | None = None
        # Told of each score that counts: the computation, the places and their nats.
        self.heard: Callable[[int, Places, NDArray[np.float64]], None] | None = None
        self.bytes_limit = BYTES
        # What tensors made of gradients have learned, outside of any weights that are known.
        self.gradients: Beside[Learned] = Beside()
        self._current: dict[Any, Pass] = {}
        self._bytes = self._events = self.dropped = 0

    def tick(self) -> int:
        """The next number of a computation or update."""
        self.at += 1
        return self.at

    def source(self, places: Places, out: torch.Tensor, before: Callable[[], None]) -> torch.Tensor | None:
        """Note a computation of losses; its codes, or None where the targets are not of the validation text."""
        read, self.read = self.read, []
        participants = self.weights.participants()
        if not (places >= 0).any():
            return None
        before()
        inputs = self._inputs(read, places)
        made = Source(
            at=self.tick(),
            targets=places.reshape(-1),
            inputs=inputs,
            grad=out.requires_grad,
            weights=self.weights.hash(participants),
            participants=participants,
            learned=self.weights.union(self.weights.learned(participants), self._gradient(out)),
            counted=np.zeros(places.size, dtype=np.bool_),
        )
        self.sources.append(made)
        return self.tags.source(places)

    def targets(self, tensor: torch.Tensor) -> Places:
        """Places of what is predicted; a flat tensor has the rows of what was read before."""
        if tensor.ndim == 1:
            for each in reversed(self.read or self._read):
                if each.size == tensor.numel() and each.ndim > 1:
                    found = self.shard.decode(tensor.detach().numpy().reshape(each.shape)).reshape(-1)
                    return np.where(found >= 0, found, self.shard.of(tensor))
        return self.shard.of(tensor)

    def scalar(self, codes: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """The code of a computation's sum or mean."""
        values = losses.detach().reshape(-1).to(torch.float64).numpy()
        code = self.tags.add(codes.numpy(), values if values.size == codes.numel() else np.full(codes.numel(), np.nan))
        return torch.tensor(code, dtype=torch.int64)

    def count(self, tensor: torch.Tensor, tag: Tag, how: str) -> None:
        """Something that holds losses is read or added up: they count."""
        codes, values = tag.codes.reshape(-1).numpy(), nats(tensor.reshape(-1), tag.form)
        single = (codes >= 0) & (codes < AGGREGATE) & (values != 0)
        parts = [(codes[single], values[single])]
        parts += [self.tags.flat(int(code)) for code in np.unique(codes[codes >= AGGREGATE])]
        codes, values = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        if not codes.size:
            return
        # Accounts are kept without gradients; what has one is the log of learning.
        function, where = _counter(self.folder)
        said = how, ((function, tensor.requires_grad), where), tag.form
        for number in np.unique(codes >> ELEMENT_BITS):
            mine = codes >> ELEMENT_BITS == number
            self._score(self.sources[number], codes[mine] & ELEMENT_MASK, values[mine], said)

    def places_of(self, tensor: torch.Tensor) -> dict[int, Places]:
        """Sources and places that a loss is made of."""
        tag = self.tags.get(tensor)
        if tag is None:
            return {}
        codes = tag.codes.reshape(-1).numpy()
        parts = [codes[(codes >= 0) & (codes < AGGREGATE)]]
        parts += [self.tags.flat(int(code))[0] for code in np.unique(codes[codes >= AGGREGATE])]
        every = np.concatenate(parts)
        numbers = every >> ELEMENT_BITS
        found = {int(number): self.tags.places(every[numbers == number]) for number in np.unique(numbers)}
        return {number: places[places >= 0] for number, places in found.items()}

    def write(self, kind: str, event: dict[str, Any]) -> None:
        """Write an event within the bounds."""
        if self._events >= EVENTS:
            self.dropped += 1
            return
        self._events += 1
        self._bytes += 150 + sum(12 * len(value) for value in event.values() if isinstance(value, list))
        self.emit(kind, **event)

    def finish(self) -> None:
        """Say what each pass came to."""
        for each in self.passes:
            targets = each.seen[1:]
            self.emit(
                "pass",
                **{"pass": each.number},
                sum=_round(each.total),
                count=each.count,
                mean=_round(each.total / each.count) if each.count else None,
                grad=each.grad,
                where=each.where,
                forms=sorted(each.forms),
                first=each.first,
                last=each.last,
                missing=_short(ranges(1 + np.flatnonzero(targets == 0))),
                doubled=_short(ranges(1 + np.flatnonzero(targets > 1))),
                unknown=each.unknown,
                learned_before=each.early,
            )
        if self.dropped:
            self.emit("thinned", what="events of scores and updates", left_out=self.dropped, at=self.at)

    def _gradient(self, tensor: torch.Tensor) -> Learned:
        found = self.gradients.get(tensor)
        return self.weights.nothing if found is None else found

    def _inputs(self, read: list[Places], places: Places) -> Places | None:
        """What was read for these targets, rows by columns: each column the token before its target's."""
        if read:
            self._read = read
        for each in reversed(self._read):
            if each.size == places.size:
                both = (each.reshape(-1) >= 0) & (places.reshape(-1) >= 0)
                if (each.reshape(-1) + 1 == places.reshape(-1))[both].mean() > 0.5:
                    return each.reshape(-1, each.shape[-1])
        return None

    def _score(self, source: Source, elements: Places, values: NDArray[np.float64], said: tuple[str, Any, str]) -> None:
        how, (function, where), form = said
        elements, index = np.unique(elements, return_index=True)
        new = ~source.counted[elements]
        elements, values = elements[new], values[index][new]
        source.counted[elements] = True
        order = np.argsort(source.targets[elements], kind="stable")
        places, values = source.targets[elements][order], values[order]
        known = places >= 0
        unknown = int((~known).sum())
        places, values = places[known], values[known]
        if not places.size:
            return
        values = -values if np.nansum(values) < 0 else values
        mine = self._pass(function, places, source, where)
        early = places[source.learned[places]]
        np.add.at(mine.seen, places, 1)
        mine.total += float(np.nansum(values))
        mine.count += int(places.size)
        mine.unknown += unknown
        mine.early += int(early.size)
        mine.grad |= source.grad
        mine.last = max(mine.last, source.at)
        mine.forms.update({form, how, *source.how})
        event: dict[str, Any] = {
            "pass": mine.number,
            "at": source.at,
            "positions": ranges(places, again=True),
            "nll": [_round(value) for value in values.tolist()] if self._bytes < self.bytes_limit else None,
            "sum": _round(float(np.nansum(values))),
            "weights": source.weights,
            "grad": source.grad,
            "by": how,
            "learned": ranges(early),
        }
        if form != SCORE:
            event["form"] = form
        if source.how:
            event["how"] = sorted(source.how)
        if source.direct is not None:
            apart = ~(np.abs(values - source.direct[elements][order][known]) <= STRAIGHT_NATS)
            event["apart"] = ranges(places[apart])
        self.write("score", event)
        self._best(source, places, values)
        if self.heard is not None:
            self.heard(source.at, places, values)

    def _best(self, source: Source, places: Places, values: NDArray[np.float64]) -> None:
        """Scores of which each is the best of several."""
        for place, group in source.among.items():
            index = np.flatnonzero(places == place)
            if self.rows is not None and index.size:
                others = sorted({self.sources[number].at for number in group} - {source.at})
                self.rows.best(place, (*others, source.at), float(values[index[0]]))

    def _pass(self, key: Any, places: Places, source: Source, where: str) -> Pass:
        """The pass that places belong to; one that begins anew is another."""
        mine = self._current.get(key)
        if mine is not None:
            again = mine.seen[places] > 0
            if not (again.mean() > 0.5 and (mine.start in places or mine.seen[1:].all())):
                return mine
        seen = np.zeros(self.shard.size, dtype=np.int32)
        mine = Pass(len(self.passes), where, source.grad, seen, int(places.min()), source.at)
        self.passes.append(mine)
        self._current[key] = mine
        return mine


def _counter(folder: str) -> tuple[Any, str]:
    """The function of the script's that counts, and the line."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith((folder, "<unpacked")) and not code.co_filename.startswith(_HERE):
            return code, f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_name}"
        frame = frame.f_back
    return None, ""


def _short(found: list[list[int]]) -> list[list[int]]:
    return found[:200]


def _round(value: float) -> float | None:
    return round(value, 9) if value - value == 0 else None
