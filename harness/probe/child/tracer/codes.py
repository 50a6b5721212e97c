"""Which element of which tensor holds whose loss: a number for each element, carried along beside the tensor.

A code is a source (one computation of losses) and an element of it; an aggregate's code stands for many of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from .beside import Beside

ELEMENT_BITS = 24
ELEMENT_MASK = (1 << ELEMENT_BITS) - 1
AGGREGATE = 1 << 62
# Elements of a tensor for which sums of unlike losses are told apart.
DISTINCT_LIMIT = 4096
SCORE, PROBABILITY = "score", "probability"


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tensor's elements are.

    Attributes:
        codes: a code for each element; negative: none.
        form: score (nats, of either sign) or probability.
    """

    codes: torch.Tensor
    form: str = SCORE


@dataclass(slots=True)
class Aggregate:
    """A sum or mean of losses.

    Attributes:
        codes: of losses for single tokens.
        values: their nats, as they were added.
        parts: aggregates that it contains.
    """

    codes: NDArray[np.int64]
    values: NDArray[np.float64]
    parts: list[int] = field(default_factory=list)


class Tags(Beside[Tag]):
    """Tags of living tensors, and what their codes mean.

    Attributes:
        targets: places of what each source predicts.
        aggregates: by code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[NDArray[np.int64]] = []
        self.aggregates: dict[int, Aggregate] = {}

    def source(self, targets: NDArray[np.int64]) -> torch.Tensor:
        """Codes for a new source, one for each of its targets' places."""
        self.targets.append(targets.reshape(-1))
        return torch.arange(targets.size) | (len(self.targets) - 1 << ELEMENT_BITS)

    def places(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places that codes of single tokens stand for; negative: unknown."""
        found = np.full(codes.shape, -1, dtype=np.int64)
        sources = codes >> ELEMENT_BITS
        for number in np.unique(sources[(codes >= 0) & (codes < AGGREGATE)]):
            mine = sources == number
            found[mine] = self.targets[number][codes[mine] & ELEMENT_MASK]
        return found

    def _places(self, codes: torch.Tensor) -> torch.Tensor:
        # What is unknown equals nothing.
        places = self.places(codes.numpy())
        return torch.from_numpy(np.where(places < 0, -1 - np.arange(places.size).reshape(places.shape), places))

    def aggregate(self, codes: torch.Tensor, values: torch.Tensor, form: str = SCORE) -> int:
        """Make an aggregate of elements; what is exactly zero was masked out."""
        return self.add(codes.reshape(-1).numpy(), nats(values.reshape(-1), form))

    def add(self, codes: NDArray[np.int64], values: NDArray[np.float64]) -> int:
        """Make an aggregate of codes and their nats; returns its code."""
        kept = (codes >= 0) & (values != 0)
        codes, values = codes[kept], values[kept]
        nested = codes >= AGGREGATE
        code = AGGREGATE | len(self.aggregates)
        self.aggregates[code] = Aggregate(codes[~nested], values[~nested], [int(each) for each in codes[nested]])
        return code

    def union(self, first: int, second: int) -> int:
        """An aggregate of two codes, aggregates for preference."""
        codes = np.array([first, second], dtype=np.int64)
        return self.add(codes, np.full(2, np.nan))

    def flat(self, code: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All codes of single tokens below one, with their nats."""
        codes, values, todo, seen = [], [], [code], set()
        while todo:
            each = todo.pop()
            if each in seen:
                continue
            seen.add(each)
            aggregate = self.aggregates[each]
            codes.append(aggregate.codes)
            values.append(aggregate.values)
            todo.extend(aggregate.parts)
        return np.concatenate(codes), np.concatenate(values)

    def combine(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Codes of elements that are each made of two."""
        first, second = torch.broadcast_tensors(first, second)
        single = (first < AGGREGATE) & (second < AGGREGATE)
        same = single & ((first == second) | (self._places(first) == self._places(second)))
        merged = torch.where(first < 0, second, torch.where(second < 0, first, torch.maximum(first, second)))
        unlike = (first >= 0) & (second >= 0) & ~same & (first != second)
        if not unlike.any():
            return merged
        if unlike.sum() > DISTINCT_LIMIT:
            return torch.where(unlike, -1, merged)
        places = unlike.reshape(-1).nonzero()[:, 0]
        pairs = first.reshape(-1)[places].tolist(), second.reshape(-1)[places].tolist()
        made = torch.tensor([self.union(a, b) for a, b in zip(*pairs, strict=True)], dtype=torch.int64)
        return merged.reshape(-1).index_put((places,), made).reshape(merged.shape)


def nats(values: torch.Tensor, form: str) -> NDArray[np.float64]:
    """Nats of what a tensor holds; zero only where it holds zero."""
    numbers: NDArray[np.float64] = values.detach().to(torch.float64).numpy()
    if form == PROBABILITY:
        with np.errstate(divide="ignore"):
            return np.where(numbers > 0, -np.log(np.maximum(numbers, 1e-300)), 0.0)
    return numbers
