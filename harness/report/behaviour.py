"""What the probe saw, as tables and a figure: its runs, and scores and updates in order over the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.model import Value
from harness.report.charts import FULL, nice
from harness.report.jsonfacts import Cell, cell, members, number, unlocated, within

RUN_COLUMNS: Final = (("val_bpb", "BPB"), ("seconds", "seconds"), ("peak_memory_bytes", "memory"))
QUESTIONS: Final = (
    ("non_interference", "Does the artifact depend on the validation text?"),
    ("later", "Do scores depend on later tokens?"),
    ("target", "Do distributions depend on their target?"),
    ("sum", "Do probabilities add up to one?"),
    ("artifact", "Does the score depend on more than the artifact?"),
    ("two_ranks", "Does it come to its score as two processes?"),
)
COPY_COLUMNS: Final = (
    ("position", "position"),
    ("compared", "scores held"),
    ("effect", "their change, nats"),
    ("row", "row at the position"),
    ("row_effect", "its change, nats"),
    ("farthest", "reach, tokens"),
)
# Narrower than this a block could not be seen.
LEAST_HEIGHT: Final = 0.6


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of the table."""

    name: str
    cells: tuple[Cell, ...]
    ended: str


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A block of the figure, in percent from the left and the top; `kind` is score, update or learned."""

    kind: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Scores and updates over the text; ticks are token positions from the top down.

    Attributes:
        rectangles: the blocks, the earliest at the left.
        ticks: token positions, evenly spaced.
        rows: for readers without the figure: kind, tokens, positions and tokens learned before, block by block.
        left_out: blocks that are not drawn.
    """

    rectangles: tuple[Rectangle, ...]
    ticks: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one experiment says."""

    question: str
    result: str
    reason: str


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the probe's part of the page shows.

    Attributes:
        isolation: level and backend.
        runs: every run.
        answers: what each experiment says.
        copies: for each copy of the trained process its kind and the cells of its row.
        seed: of the changes, or "".
        timeline: scores and updates in order.
    """

    isolation: str
    runs: tuple[RunRow, ...]
    answers: tuple[Answer, ...]
    copies: tuple[tuple[str, tuple[Cell, ...]], ...]
    seed: str
    timeline: Timeline | None


def behaviour(facts: Mapping[str, Value]) -> Behaviour | None:
    """The probe's part of a page; None where nothing was probed."""
    probe = within(dict(facts), "probe")
    if not isinstance(probe, dict) or "runs" not in probe:
        return None
    runs = [_run(run) for run in members(facts, "probe", "runs")]
    seed = number(within(probe, "flips", "seed"))
    return Behaviour(
        str(probe.get("isolation", "")),
        tuple(runs),
        tuple(_answers(probe)),
        tuple(_copy(each) for each in members(probe, "flips", "copies")),
        "" if seed is None else f"{seed:.0f}",
        _timeline(within(probe, "ledger")),
    )


def _answers(probe: Mapping[str, Value]) -> Iterator[Answer]:
    for name, question in QUESTIONS:
        found = within(dict(probe), *([name] if name in probe else ["flips", name]))
        bare = unlocated(found)
        if isinstance(bare, dict) and "result" in bare:
            yield Answer(question, str(bare["result"]), str(bare.get("reason", "")))


def _copy(each: Mapping[str, Value]) -> tuple[str, tuple[Cell, ...]]:
    return str(each.get("kind", "")), tuple(cell(name, each.get(name)) for name, _ in COPY_COLUMNS)


def _run(run: Mapping[str, Value]) -> RunRow:
    cells = tuple(cell(name, run.get(name)) for name, _ in RUN_COLUMNS)
    error = within(run.get("crash"), "error")
    return RunRow(str(run.get("name", "")), cells, str(error or run.get("reason", "")))


def _timeline(ledger: Value) -> Timeline | None:
    blocks = [each for each in _list(within(ledger, "timeline")) if isinstance(each, dict)]
    tokens = number(within(ledger, "tokens"))
    if not blocks or not tokens:
        return None
    axis = nice(0.0, tokens)
    drawn = [part for index, block in enumerate(blocks) for part in _drawn(block, index, len(blocks), axis[-1])]
    ticks = tuple(f"{position:,.0f}" for position in reversed(axis))
    left_out = number(within(ledger, "left_out")) or 0
    return Timeline(tuple(drawn), ticks, tuple(map(_row, blocks)), int(left_out))


def _drawn(block: Mapping[str, Value], index: int, count: int, top: float) -> list[Rectangle]:
    kind = "learned" if number(block.get("learned")) else str(block.get("kind"))
    width = FULL / count
    found = []
    for start, end in _pairs(block):
        height = max(FULL * (end - start) / top, LEAST_HEIGHT)
        found.append(Rectangle(kind, width * index, FULL - FULL * start / top - height, width, height))
    return found


def _row(block: Mapping[str, Value]) -> tuple[str, str, str, str]:
    ranges = ", ".join(f"{start:,.0f}-{end - 1:,.0f}" for start, end in _pairs(block))
    count, learned = (number(block.get(name)) or 0 for name in ("count", "learned"))
    return str(block.get("kind")), f"{count:,.0f}", ranges, f"{learned:,.0f}"


def _pairs(block: Mapping[str, Value]) -> list[tuple[float, float]]:
    pairs = [[number(end) for end in _list(pair)] for pair in _list(block.get("ranges"))]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0] is not None and pair[1] is not None]


def _list(value: Value) -> Sequence[Value]:
    return value if isinstance(value, list) else []
