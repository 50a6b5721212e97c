"""The rows that targets are looked up in: whether they are distributions, and what they hold at some places."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .positions import Places

# Numbers of the vocabulary whose chances are told of a row. A row of fewer numbers is none of a vocabulary.
SAMPLE = 64
# A score that is as near to the softmax of its row is that softmax, up to rounding.
STRAIGHT_NATS = 1e-4
# Losses of which one was chosen are told apart from here on.
APART_NATS = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table that targets are looked up in.

    Attributes:
        values: as they stand there; shape (vocabulary,).
        token: the number that was looked up.
        chances: whether they are probabilities, not logits.
    """

    values: torch.Tensor
    token: int
    chances: bool = False

    @property
    def given(self) -> torch.Tensor:
        """As logarithms."""
        return _given(self.values, chances=self.chances)

    @property
    def logs(self) -> torch.Tensor:
        """Log-probabilities of a softmax over it."""
        return self.given - torch.logsumexp(self.given, -1)

    @property
    def nats(self) -> float:
        """Of the token, by that softmax."""
        return -float(self.logs[self.token])


class Rows:
    """Looks at each row of logits, log-probabilities or probabilities that a target is looked up in.

    Args:
        watched: places of which the row is told, and tokens whose chances are told besides a sample of all.
        emit: writes an event.
    """

    def __init__(self, watched: Mapping[int, Sequence[int]], emit: Callable[..., None]) -> None:
        self._tokens = watched
        self._watched = np.array(sorted(watched), dtype=np.int64)
        self._emit = emit
        # The rows of watched places by the number of the computation and the place.
        self._kept: dict[tuple[int, int], Row] = {}
        # The row that was last asked for a single number.
        self.last: Row | None = None

    def watched(self, places: Places) -> list[int]:
        """Indices of the watched ones among some places."""
        return [int(index) for index in np.flatnonzero(np.isin(places, self._watched))]

    def direct(
        self, at: int, places: Places, table: torch.Tensor, targets: torch.Tensor, *, chances: bool
    ) -> NDArray[np.float64]:
        """Nats of each target by its row alone; the rows of watched places are told.

        Args:
            at: number of the computation.
            places: of the targets, in order.
            table: one row for each target; shape (targets, vocabulary).
            targets: the tokens.
            chances: whether the rows hold probabilities, not logits.
        """
        flat = places.reshape(-1)
        rows = table.detach().reshape(flat.size, -1)
        given = _given(rows, chances=chances)
        tokens = targets.detach().reshape(-1).to(torch.int64)
        safe = tokens.clamp(0, rows.shape[1] - 1)
        nats: NDArray[np.float64] = (torch.logsumexp(given, -1) - given.gather(1, safe[:, None])[:, 0]).numpy()
        for index in self.watched(flat):
            row = Row(rows[index].clone(), int(safe[index]), chances)
            self._kept[at, int(flat[index])] = row
            self.tell(at, int(flat[index]), row)
        return nats

    def single(self, row: torch.Tensor, token: int) -> None:
        """A row was asked for one number; it may hold others by the time that this one counts."""
        size = row.numel()
        if row.ndim == 1 and size >= SAMPLE and -size <= token < size:
            chances = bool(row.min() >= 0) and 0.2 < float(row.sum()) < 20
            self.last = Row(row.detach().clone(), token % size, chances)

    def best(self, place: int, computations: Sequence[int], nats: float) -> None:
        """The best of several losses of one place counts: told is the row of the best chances of every token.

        Args:
            place: the place.
            computations: their numbers; the last is that of the score.
            nats: the score.
        """
        rows = [self._kept[at, place] for at in computations if (at, place) in self._kept]
        losses = [row.nats for row in rows]
        # What is the only one, or as good as all others, was not chosen for that.
        if not rows or abs(min(losses) - nats) > STRAIGHT_NATS or max(losses) - min(losses) < APART_NATS:
            return
        most = torch.stack([row.logs for row in rows]).amax(0)
        self.tell(computations[-1], place, Row(most, rows[0].token), len(rows))

    def tell(self, at: int, place: int, row: Row, best_of: int = 1) -> None:
        """Tell of a row; of several from which the best was chosen, the sum of the best chances is its total."""
        given = row.given
        total = float(torch.logsumexp(given, -1))
        self._emit(
            "row",
            position=place,
            at=at,
            crc=_crc(row.values),
            bits=8 * row.values.element_size(),
            width=row.values.numel(),
            target=row.token,
            # What the row adds up to as it stands, and the target's nats in it.
            total=_rounded(math.exp(min(total, 50.0))),
            nats=_rounded(-float(given[row.token])),
            logs=[_rounded(value) for value in (given[self._chosen(place, given.numel())] - total).tolist()],
            **({"best_of": best_of} if best_of > 1 else {}),
        )

    def _chosen(self, place: int, vocabulary: int) -> list[int]:
        return [*(token for token in self._tokens[place] if token < vocabulary), *_sample(vocabulary)]


def _sample(vocabulary: int) -> list[int]:
    rng = np.random.default_rng(vocabulary)
    return [int(each) for each in np.sort(rng.permutation(vocabulary)[:SAMPLE])]


def _given(values: torch.Tensor, *, chances: bool) -> torch.Tensor:
    wide = values.to(torch.float64)
    return wide.log() if chances else wide


def _rounded(value: float) -> float | None:
    return round(value, 6) if value - value == 0 else None


def _crc(row: torch.Tensor) -> str:
    data: Any = row.contiguous().view(torch.uint8).numpy()
    return f"{zlib.crc32(data):08x}"
