"""Events of a run as they are read, damaged and forged ones among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.probe import eventlines
from harness.probe.eventlines import Reader
from harness.probe.experiments import artifact, flips, kraft, ledger, scores, timeline
from harness.probe.session import _read_events
from tests.proberuns import CHOSEN, account, copies, ran, row, score, whole
from tests.test_probe_sums import TEXT

TOKENS = 5
ACCOUNT = account(1.0, 3.0, 1.5, 2.5, after=[1, 1, 2, 2])
SOURCES = {"kind": "sources", "sources": [[7, [[1, 3]], []], [8, [[-1, 0], [2, 5]], [[2, 3]]]]}
SUM = {"kind": "sum", "place": 2, "total": 1.0, "count": 4, "first": [[3, 2.5]]}
VARIANT = {"kind": "variant", "name": "noise", "ended": "exit", "status": 0, "printed": "x \u00e4 \U0001f600"}
GOOD = [
    *copies().events,
    ACCOUNT,
    {**ACCOUNT, "straight": [[0, 4]]},
    SOURCES,
    SUM,
    VARIANT,
    row("a", [None, -1.0]),
    {"kind": "noise", "tensors": 3, "stepped": 4},
    {"kind": "update", "at": 3, "positions": [[1, 3]]},
    {"kind": "crash", "type": "E", "message": "m", "blame": "script", "path": None, "line": 3},
    {"kind": "another", "whatever": {"a": [1.5, None, "b"]}},
]


def read(*lines: str) -> list[Any]:
    reader = Reader(TOKENS)
    return [reader.event(line) for line in lines]


def without(event: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != key}


def test_what_the_child_writes_is_read(tmp_path: Path) -> None:
    lines = [json.dumps(event) for event in GOOD]
    assert read(*lines) == GOOD
    channel = tmp_path / "channel.jsonl"
    channel.write_text("\n".join([*lines, "{", "[]", '{"kind": 3}']) + "\n", encoding="utf-8")
    found = _read_events(channel, TOKENS)
    assert (found.found, found.damaged) == (GOOD, 3)


DAMAGED: list[str] = [
    '{"kind": "pass", "pass": 0, "count": 4, "mean": ' + "9" * 400 + "}",
    '{"kind": "another", "value": ' + "9" * 5_000 + "}",
    '{"kind": "another", "value": NaN}',
    '{"kind": "another", "value": [1e999]}',
    '{"kind": "variant", "name": "noise", "ended": "exit", "printed": "\\ud800"}',
    '{"kind": "sum", "place": 2, "total": NaN, "count": 4}',
    "[" * 100_000,
    *(
        json.dumps(event)
        for event in (
            without(ACCOUNT, "steps"),
            {**ACCOUNT, "steps": ["x"]},
            {**ACCOUNT, "after": [None]},
            {**ACCOUNT, "straight": [[0, 5]]},
            {"kind": "sources", "sources": [3]},
            {"kind": "sources", "sources": [[7, [[1, 2, 3]], []]]},
            {"kind": "sources", "sources": [[7, [[-5, 3]], []]]},
            {"kind": "sources", "sources": [[7, [[1, 3]]]]},
            {"kind": "sources", "sources": [[7, [[1, 3]], [[-1, 0]]]]},
            {"kind": "sources", "sources": [[7, [[1, 3]], 3]]},
            without(row("a", [-1.0]), "crc"),
            {**row("a", [-1.0]), "position": [2]},
            {**SUM, "first": [3]},
            {**SUM, "place": -1},
            {**score(1, 1, [1.0]), "positions": [[-1, 3]]},
            {**score(1, 1, [1.0]), "positions": [[0, 10_000_000]]},
            {**score(1, 1, [1.0]), "apart": [[0, 10_000_000]] * 40},
            {**whole(), "mean": 1e300},
            {"kind": "noise", "tensors": "many", "stepped": 4},
            {"kind": "another", "variant": ["a"]},
            {"kind": "another", "rank": "0"},
        )
    ),
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_event_is_no_event(line: str) -> None:
    assert read(line) == [None]


def test_places_of_all_events_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlines, "PLACES_LIMIT", 10)
    line = json.dumps(score(1, 1, [1.0, 2.0, 3.0, 4.0]))
    assert [event is not None for event in read(line, line, line)] == [True, True, False]
    monkeypatch.setattr(eventlines, "EVENT_PLACES_LIMIT", 3)
    assert read(line) == [None]


WORTHLESS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([[1, 3]])


@given(st.data())
def test_no_damage_of_one_event_ends_an_experiment(data: st.DataObject) -> None:
    events = [dict(event) for event in GOOD]
    chosen = data.draw(st.sampled_from(events))
    key = data.draw(st.sampled_from(sorted(chosen)))
    value = data.draw(WORTHLESS | st.lists(WORTHLESS, max_size=2) | st.just("(absent)"))
    chosen.pop(key)
    if value != "(absent)":
        chosen[key] = value
    found = [event for event in read(*map(json.dumps, events)) if event is not None]
    made = ran(*found)
    assert flips.judge(made, CHOSEN, 4).result in {flips.BOUND, flips.UNBOUND}
    assert kraft.judge(made, [scores.Unit(1, (2,), 2.5)], TEXT).result in {
        kraft.ONE,
        kraft.MORE,
        kraft.LESS,
        kraft.UNCLEAR,
    }
    assert ledger.judge(made, TOKENS).result in {ledger.BOUND, ledger.UNBOUND, ledger.NOTHING}
    assert artifact.judge(made)[0] in {artifact.SAME, artifact.DEPENDS, artifact.UNCLEAR}
    blocks, left_out = timeline.timeline(made, 0)
    assert len(blocks) <= len(found)
    assert left_out == 0
