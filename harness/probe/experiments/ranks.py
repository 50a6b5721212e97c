"""A world of two: the script as two processes that meet over gloo, as a published run is eight.

Some scripts switch a cache or another way of training on only where there are several processes, and a token that one
process learns from may be scored by the other one later. So the script runs once more as two, traced; and untraced, on
the first text, where that comes to no score. The scores of the two are put together: each process counts a part of the
text, and together they count each token once. What one process has learned reaches the other by collective operations,
which carry it along.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.probe.experiments.events import ranges
from harness.probe.experiments.ledger import Ledger
from harness.probe.session import MiniatureRun
from harness.sandbox.levels import Level

SIZE: Final = 2
RUN: Final = "two-ranks"
TRACED: Final = "two-ranks-ledger"
REACHED, NOT_EXERCISED = "reached", "not-exercised"
# Sums are made in another order and batches are cut in another way: a miniature training comes to a score near by.
AGREES_SHARE: Final = 0.05
# Each costs a number for every token of the text.
PASSES_LIMIT: Final = 256
NO_LOOPBACK: Final = "the sandbox in force (L2) has no network at all, not even with itself"
NO_RANKS: Final = "the script asks for no rank and for no process group: it would run twice"

# What a process says whose partner is gone.
_OF_THE_OTHER = re.compile(r"closed by peer|reset by peer|gloo", re.IGNORECASE)

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranks:
    """What two processes came to.

    Attributes:
        result: `reached` or `not-exercised`.
        reason: why, as a clause.
        val_bpb: the score that they printed.
        alone: the score of one process on the same text.
        ledger: the order of scores and updates over both; None where it was not followed.
    """

    result: str
    reason: str
    val_bpb: float | None = None
    alone: float | None = None
    ledger: Ledger | None = None


@dataclass(slots=True)
class _Part:
    """One process's pass: its summary, and how often it counts each position."""

    summary: Mapping[str, Any]
    counts: Counts
    lines: list[Mapping[str, Any]] = field(default_factory=list)


def unable(level: Level, *, ranked: bool) -> str:
    """Why two processes are not tried, or ""."""
    if not ranked:
        return NO_RANKS
    return NO_LOOPBACK if level is Level.L2 else ""


def judge(run: MiniatureRun, alone: float | None) -> Ranks:
    """Whether two processes reached their score, and whether it is near that of one.

    Args:
        run: the run of two.
        alone: the score of one process on the same text.
    """
    if run.val_bpb is None:
        return Ranks(NOT_EXERCISED, _why_not(run), None, alone)
    told = f"two processes printed {run.val_bpb:.4f} BPB"
    if alone is None:
        return Ranks(REACHED, told, run.val_bpb, None)
    near = abs(run.val_bpb - alone) <= AGREES_SHARE * abs(alone)
    apart = "within" if near else "apart by more than"
    return Ranks(REACHED, f"{told}, one {alone:.4f}: {apart} {AGREES_SHARE:.0%}", run.val_bpb, alone)


def together(run: MiniatureRun, lines: Iterable[Mapping[str, Any]]) -> MiniatureRun:
    """The same run with the passes of its processes put together.

    The n-th pass of a function on one process belongs to the n-th on the others. A process that has other tokens each
    time does not tell where its next pass begins: another one's beginnings tell. Where they count the same tokens, each
    process scores the text by itself, and the first one's pass stands for all.

    Args:
        run: the traced run.
        lines: its ledger, with the header.
    """
    header, *rest = lines
    groups = [_chosen(group) for group in _groups(rest, header["tokens"])]
    events: list[Mapping[str, Any]] = [line for line in rest if line["kind"] == "update"]
    for number, group in enumerate(sorted(groups, key=_last)):
        events.append(_joined(number, group))
        events += [{**line, "pass": number} for part in group for line in part.lines]
    return dataclasses.replace(run, events=tuple(events))


def _groups(lines: Sequence[Mapping[str, Any]], tokens: int) -> list[list[_Part]]:
    """Passes that belong together; one of which events were left out is not among them, nor are the first of many."""
    passes = {(line["rank"], line["pass"]): line for line in lines if line["kind"] == "pass"}
    # The reported one is among the last.
    kept = sorted(passes, key=lambda key: passes[key]["last"])[-PASSES_LIMIT:]
    parts = {key: _Part(passes[key], np.zeros(tokens, dtype=np.int64)) for key in kept}
    for line in lines:
        part = parts.get((line["rank"], line["pass"])) if line["kind"] == "score" else None
        if part is not None:
            for begin, end in line["positions"]:
                part.counts[begin:end] += 1
            part.lines.append(line)
    counters: dict[tuple[str, bool], dict[int, list[_Part | None]]] = {}
    for (rank, place), summary in sorted(passes.items(), key=lambda item: item[0]):
        mine = counters.setdefault((summary["where"], summary["grad"]), {})
        mine.setdefault(rank, []).append(parts.get((rank, place)))
    groups: list[list[_Part]] = []
    for each in counters.values():
        groups += [[part for part in group if part is not None] for group in zip_longest(*_divided(each))]
    return [group for group in groups if group and all(_whole(part) for part in group)]


def _divided(ranks: Mapping[int, list[_Part | None]]) -> list[Sequence[_Part | None]]:
    """Each process's passes of one function, divided where the process that has most of them begins another."""
    most = max(ranks.values(), key=len)
    if any(part is None for mine in ranks.values() for part in mine):
        return list(ranks.values())
    begins = [_first(part) for part in most if part is not None][1:]
    return [mine if len(mine) == len(most) or len(mine) > 1 else _cut(mine[0], begins) for mine in ranks.values()]


def _first(part: _Part) -> int:
    return min((int(line["at"]) for line in part.lines), default=0)


def _cut(part: _Part | None, begins: Sequence[int]) -> Sequence[_Part | None]:
    """A pass that counts several: its lines by what they come after; as it is where lines were left out."""
    if part is None or not _whole(part):
        return [part]
    pieces: list[_Part | None] = []
    for low, high in pairwise((0, *begins, math.inf)):
        lines = [line for line in part.lines if low <= line["at"] < high]
        counts = np.zeros_like(part.counts)
        for begin, end in (each for line in lines for each in line["positions"]):
            counts[begin:end] += 1
        told: dict[str, Any] = {
            "sum": sum(float(line["sum"]) for line in lines),
            "count": int(counts.sum()),
            "last": max((int(line["at"]) for line in lines), default=0),
            "learned_before": sum(end - begin for line in lines for begin, end in line["learned"]),
        }
        pieces.append(_Part({**part.summary, **told}, counts, lines) if lines else None)
    return pieces


def _whole(part: _Part) -> bool:
    return bool(part.summary["count"] == part.counts.sum() and part.summary["sum"] is not None and part.counts.any())


def _chosen(group: list[_Part]) -> list[_Part]:
    first, *others = group
    for other in others:
        shared = ((first.counts > 0) & (other.counts > 0)).sum()
        if 2 * shared > min((first.counts > 0).sum(), (other.counts > 0).sum()):
            return [first]
    return group


def _last(group: list[_Part]) -> int:
    return max(int(part.summary["last"]) for part in group)


def _joined(number: int, group: list[_Part]) -> dict[str, Any]:
    """The summary of several parts, as the tracer makes that of one."""
    count = sum(part.summary["count"] for part in group)
    targets = sum((part.counts for part in group), np.zeros_like(group[0].counts))[1:]
    return {
        "kind": "pass",
        "pass": number,
        "mean": sum(part.summary["sum"] for part in group) / count,
        "count": count,
        "where": group[0].summary["where"],
        "missing": ranges(1 + np.flatnonzero(targets == 0)),
        "doubled": ranges(1 + np.flatnonzero(targets > 1)),
        "learned_before": sum(part.summary["learned_before"] for part in group),
    }


def _why_not(run: MiniatureRun) -> str:
    """The true reason: what is refused, else the error that came first, else the limit."""
    refusal = next(iter(run.of("refusal")), None)
    if refusal is not None:
        return f"it asks for {str(refusal.get('name'))[:100]}, which has no equivalent in a world of two here"
    crashes = sorted(run.of("crash"), key=lambda event: _OF_THE_OTHER.search(str(event.get("message"))) is not None)
    crash = next(iter(crashes), None)
    if crash is not None:
        told = f"{crash.get('type')}: {crash.get('message')}"[:200]
        return f"process {crash.get('rank')} ended with {told} (blame: {str(crash.get('blame'))[:20]})"
    return run.outcome.reason if run.outcome.ended != "exit" else "two processes ran to their end and printed no score"
