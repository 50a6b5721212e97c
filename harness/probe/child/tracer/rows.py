"""The rows that targets are looked up in: whether they are distributions, and what they hold at some places."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .positions import Places

# Numbers of the vocabulary whose chances are told of a row.
SAMPLE = 64


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
        wide = rows.to(torch.float64)
        given = wide.log() if chances else wide
        totals = torch.logsumexp(given, -1)
        logs = given - totals[:, None]
        tokens = targets.detach().reshape(-1).to(torch.int64)
        safe = tokens.clamp(0, rows.shape[1] - 1)
        nats: NDArray[np.float64] = -logs.gather(1, safe[:, None])[:, 0].numpy()
        for index in np.flatnonzero(np.isin(flat, self._watched)):
            row = int(index)
            self._emit(
                "row",
                position=int(flat[row]),
                at=at,
                crc=_crc(rows[row]),
                target=int(tokens[row]),
                # What the row adds up to as it stands, and the target's nats in it.
                total=_rounded(math.exp(min(float(totals[row]), 50.0))),
                nats=_rounded(-float(given[row, safe[row]])),
                logs=[_rounded(value) for value in logs[row, self._chosen(int(flat[row]), rows.shape[1])].tolist()],
            )
        return nats

    def _chosen(self, place: int, vocabulary: int) -> list[int]:
        return [*(token for token in self._tokens[place] if token < vocabulary), *_sample(vocabulary)]


def _sample(vocabulary: int) -> list[int]:
    rng = np.random.default_rng(vocabulary)
    return [int(each) for each in np.sort(rng.permutation(vocabulary)[:SAMPLE])]


def _rounded(value: float) -> float | None:
    return round(value, 6) if value - value == 0 else None


def _crc(row: torch.Tensor) -> str:
    data: Any = row.contiguous().view(torch.uint8).numpy()
    return f"{zlib.crc32(data):08x}"
