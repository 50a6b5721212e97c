"""The order of scores and updates as blocks, and the figure that is made of them."""

from __future__ import annotations

from typing import Any

import pytest

from harness.model import Value
from harness.probe.experiments import timeline as module
from harness.probe.experiments.events import pairs
from harness.probe.experiments.timeline import BLOCKS_LIMIT, RANGES_LIMIT, Block, timeline
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from harness.report.behaviour import behaviour
from tests.growth import RATIO_LIMIT, growth
from tests.proberuns import wrote

few = module._few


def run(*events: dict[str, Any]) -> MiniatureRun:
    made = wrote("a")
    return MiniatureRun(made.outcome, events, Printed(2.5, 4.2))


def score(at: object, *positions: list[int], number: int = 0, **more: Any) -> dict[str, Any]:
    return {"kind": "score", "pass": number, "at": at, "positions": list(positions), **more}


def update(at: int, *positions: list[int]) -> dict[str, Any]:
    return {"kind": "update", "at": at, "positions": list(positions)}


def test_scores_without_an_update_between_them_are_one_block() -> None:
    found, left_out = timeline(
        run(
            update(5, [1, 9]),
            score(2, [5, 9], learned=[]),
            score(1, [1, 5]),
            score(3, [1, 9], number=1),
            score(7, [9, 12], [20, 21], learned=[[9, 11]]),
            score("damaged", [30, 31]),
        ),
        0,
    )
    assert left_out == 0
    assert found == (
        Block("score", 1, 2, ((1, 9),), 8, 0),
        Block("update", 5, 5, ((1, 9),), 8, 0),
        Block("score", 7, 7, ((9, 12), (20, 21)), 4, 2),
    )


def test_many_pieces_are_joined_over_their_narrowest_gaps_and_blocks_are_bounded() -> None:
    pieces = [[10 * n, 10 * n + (9 if n % 2 else 5)] for n in range(2 * RANGES_LIMIT)]
    [block], _ = timeline(run(score(1, *pieces)), 0)
    assert len(block.ranges) == RANGES_LIMIT
    assert block.count == sum(end - start for start, end in pieces)
    assert block.ranges[:2] == ((0, 25), (30, 45))
    many = [event for n in range(BLOCKS_LIMIT) for event in (score(2 * n, [n, n + 1]), update(2 * n + 1, [n, n + 1]))]
    found, left_out = timeline(run(*many), 0)
    assert (len(found), left_out) == (BLOCKS_LIMIT, BLOCKS_LIMIT)


def test_a_hundred_thousand_pieces_take_no_longer_than_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        made.append(len(ranges))
        return few(ranges)

    monkeypatch.setattr(module, "_few", counted)
    pieces = [[3 * n, 3 * n + 1 + (n % 1_000 == 0)] for n in range(100_000)]
    quarter, whole = run(score(1, *pieces[:25_000])), run(score(1, *pieces))
    assert growth(lambda: timeline(quarter, 0), lambda: timeline(whole, 0)) < RATIO_LIMIT
    made.clear()
    [block], _ = timeline(whole, 0)
    assert (len(block.ranges), block.ranges[0][0], block.ranges[-1][1]) == (RANGES_LIMIT, 0, 299_998)
    many = [event for n in range(300) for event in (score(2 * n, [n, n + 1]), update(2 * n + 1, [n, n + 1]))]
    timeline(run(*many), 0)
    # What is left out is not made.
    assert len(made) == 1 + BLOCKS_LIMIT


@pytest.mark.parametrize("value", [None, "12", [[1]], [[1, -2]], [[1, True]], [["a", "b"]], [1, 2]])
def test_what_is_no_pair_is_left_out(value: object) -> None:
    assert pairs(value) == ()


def facts(*blocks: dict[str, Value], tokens: int = 400) -> dict[str, Value]:
    ledger: Value = {"tokens": tokens, "timeline": list(blocks), "left_out": 3}
    runs: Value = [
        {"name": "bare", "val_bpb": 2.5, "seconds": 3.0, "peak_memory_bytes": 1000, "reason": "exit status 0"}
    ]
    return {"probe": {"isolation": "L3", "runs": runs, "ledger": {"value": ledger, "path": "probe.json"}}}


def test_the_figure_has_a_column_for_each_block() -> None:
    first: dict[str, Value] = {"kind": "score", "ranges": [[0, 100], [200, 400]], "count": 300, "learned": 0}
    found = behaviour(facts(first, {"kind": "score", "ranges": [[100, 101]], "count": 1, "learned": 1}))
    assert found is not None
    assert found.timeline is not None
    drawn = [(part.kind, part.left, part.top, part.width, part.height) for part in found.timeline.rectangles]
    assert drawn[0] == ("score", 0.0, 75.0, 50.0, 25.0)
    assert drawn[1] == ("score", 0.0, 0.0, 50.0, 50.0)
    assert drawn[2][:2] == ("learned", 50.0)
    assert drawn[2][4] > 100 / 400
    assert found.timeline.ticks == ("400", "300", "200", "100", "0")
    assert found.timeline.rows[1] == ("score", "1", "100-100", "1")
    assert found.timeline.left_out == 3
    assert found.runs[0].ended == "exit status 0"


def test_answers_and_copies_have_rows() -> None:
    found = facts()
    copy: Value = {"kind": "self", "position": 70, "compared": 500, "effect": 0.25, "row": "same"}
    later: Value = {"result": "depends", "reason": "scores change", "effect": 0.25}
    probe = found["probe"]
    assert isinstance(probe, dict)
    probe["flips"] = {"value": {"seed": 7, "later": later, "copies": [copy]}, "path": "probe.json"}
    probe["two_ranks"] = {"value": {"result": "reached", "reason": "two processes printed 2.5"}, "path": "probe.json"}
    shown = behaviour(found)
    assert shown is not None
    assert [(each.result, each.reason) for each in shown.answers] == [
        ("depends", "scores change"),
        ("reached", "two processes printed 2.5"),
    ]
    [(kind, cells)] = shown.copies
    assert (kind, shown.seed) == ("self", "7")
    assert [each.text for each in cells[:4]] == ["70", "500", "0.25", "same"]


def test_without_a_probe_or_scores_there_is_no_figure() -> None:
    assert behaviour({}) is None
    assert behaviour({"probe": {"missing": "no evidence"}}) is None
    found = behaviour(facts())
    assert found is not None
    assert found.timeline is None
