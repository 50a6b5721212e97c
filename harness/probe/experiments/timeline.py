"""The reported scores and the updates of a traced run as few blocks, in the order of the computations.

What follows one another without anything of the other kind in between is one block: the scores of a chunk, then the
updates on it. So a legal adaptation is a staircase in which each update lies at or below the scores before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Final

from harness.probe.experiments.events import pairs
from harness.probe.session import MiniatureRun

SCORE, UPDATE = "score", "update"
BLOCKS_LIMIT: Final = 160
RANGES_LIMIT: Final = 6


@dataclass(frozen=True, slots=True)
class Block:
    """Scores, or updates, without the other between them.

    Attributes:
        kind: `score` or `update`.
        first: number of the first computation.
        last: number of the last one.
        ranges: positions of the text, from the first to behind the last of each run of them; close ones are joined
            where there are many.
        count: tokens.
        learned: tokens of the scores that had been learned from before.
    """

    kind: str
    first: int
    last: int
    ranges: tuple[tuple[int, int], ...]
    count: int
    learned: int


def timeline(run: MiniatureRun, number: object) -> tuple[tuple[Block, ...], int]:
    """The blocks of one pass and all updates, and how many blocks are left out.

    Args:
        run: the traced run.
        number: the pass whose scores are told.
    """
    scores = [event for event in run.of(SCORE) if event.get("pass") == number]
    events = [event for event in (*scores, *run.of(UPDATE)) if type(event.get("at")) is int]
    events.sort(key=lambda event: event["at"])
    found: list[Block] = []
    left_out = 0
    for kind, group in groupby(events, key=lambda event: event["kind"]):
        if len(found) < BLOCKS_LIMIT:
            found.append(_block(str(kind), list(group)))
        else:
            left_out += 1
    return tuple(found), left_out


def _block(kind: str, events: list[Mapping[str, Any]]) -> Block:
    every = [pair for event in events for pair in pairs(event.get("positions"))]
    learned = sum(end - start for event in events for start, end in pairs(event.get("learned")))
    merged = list(_merged(every))
    count = sum(end - start for start, end in merged)
    return Block(kind, events[0]["at"], events[-1]["at"], _few(merged), count, learned if kind == SCORE else 0)


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same positions as ranges in order that do not touch."""
    begin = end = -1
    for start, stop in sorted(ranges):
        if begin >= 0 and start <= end:
            end = max(end, stop)
            continue
        if begin >= 0:
            yield begin, end
        begin, end = start, stop
    if begin >= 0:
        yield begin, end


def _few(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """At most so many ranges: the widest gaps stay."""
    gaps = [after[0] - before[1] for before, after in pairwise(ranges)]
    # Of equal gaps the later ones stay.
    widest = sorted(heapq.nlargest(RANGES_LIMIT - 1, range(len(gaps)), key=lambda index: (gaps[index], index)))
    begins, ends = [0, *(index + 1 for index in widest)], [*widest, len(ranges) - 1]
    return tuple((ranges[begin][0], ranges[end][1]) for begin, end in zip(begins, ends, strict=True) if ranges)
