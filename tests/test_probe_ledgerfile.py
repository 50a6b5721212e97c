"""The ledger file: what may stand in it, in which order, and that the quick checks are those of the schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model import HarnessError
from harness.probe import ledgerlines
from harness.probe.printed import Printed
from harness.probe.session import MiniatureRun
from harness.sandbox.job import Outcome
from harness.sandbox.levels import Level
from harness.sources import ledgerfile, schemas, shapes

TOKENS = 100
PHASE = {"phase": "evaluation", "at": 4}
# One event of each kind, as the child writes it, late sums included.
EVENTS: list[dict[str, Any]] = [
    {"kind": "file", "path": "data/val.bin", "mode": "rb", **PHASE},
    {"kind": "socket", "what": "socket.connect", "address": "('127.0.0.1', 80)", **PHASE},
    {"kind": "process", "what": "subprocess.Popen", "command": "nvidia-smi", **PHASE},
    {
        "kind": "score",
        "pass": 0,
        "at": 5,
        "positions": [[1, 3], [2, 3]],
        "nll": [1.5, 2.0, None],
        "sum": 3.5,
        "weights": "0000abcd",
        "grad": False,
        "by": "item",
        "learned": [[1, 2]],
        "form": "probability",
        "how": ["minimum"],
    },
    {
        "kind": "update",
        "at": 3,
        "what": "optimizer.step",
        "positions": [[0, 7]],
        "inputs": [[0, 6]],
        "before": "00000001",
        "weights": "00000002",
        "changed": True,
    },
    {"kind": "lost", "name": "einsum", "error": "ValueError: no", "at": 5},
    {"kind": "phase", "name": "training", "steps": 8, "begins": 1, "ends": 3},
    {"kind": "phase", "name": "evaluation", "begins": 5},
    {
        "kind": "pass",
        "pass": 0,
        "sum": 3.5,
        "count": 3,
        "mean": 1.17,
        "grad": False,
        "where": "train_gpt.py:9 evaluate",
        "forms": ["score", "item"],
        "first": 5,
        "last": 5,
        "missing": [[3, 100]],
        "doubled": [],
        "unknown": 0,
        "learned_before": 1,
    },
    {"kind": "told", "what": "score", "at": 5, "positions": [[1, 3]], "sum": 3.5, "vocabulary": None},
    {"kind": "thinned", "what": "events of scores and updates", "left_out": 3, "at": 9},
]
HEADER = {
    "kind": "ledger",
    "schema": "ledger/1",
    "script": "train_gpt.py",
    "tokens": TOKENS,
    "ranks": 1,
    "lines": 11,
    "rejected": 0,
    "unreadable": 0,
}


def ran(events: list[dict[str, Any]], damaged: int = 0) -> MiniatureRun:
    ended = Outcome(Level.L3, "bubblewrap", "exit", "", 0, 1.0, 1.0, 1, Path("o"), None, Path("k"))
    numbered = ({"i": number, "t": 0.5, **event} for number, event in enumerate(events))
    return MiniatureRun(ended, tuple(numbered), Printed(2.5, 4.2), damaged=damaged)


def written(folder: Path, events: list[dict[str, Any]], damaged: int = 0) -> list[dict[str, Any]]:
    path = folder / ledgerfile.NAME
    ledgerlines.write(ran(events, damaged), path, "train_gpt.py", TOKENS)
    return [dict(line) for line in ledgerfile.read(path)]


def test_every_kind_has_its_line_in_the_order_of_happening(tmp_path: Path) -> None:
    header, *lines = written(tmp_path, EVENTS)
    assert header == HEADER
    assert [(line["kind"], line["at"]) for line in lines] == [
        ("phase", 1),
        ("update", 3),
        ("file", 4),
        ("socket", 4),
        ("process", 4),
        ("phase", 5),
        ("score", 5),
        ("lost", 5),
        ("told", 5),
        ("pass", 5),
        ("thinned", 9),
    ]
    assert {line["kind"] for line in lines} == ledgerfile.kinds()
    assert {line["rank"] for line in lines} == {0}
    assert {event["kind"] for event in EVENTS} == ledgerfile.kinds()


def test_the_library_finds_every_line_valid(tmp_path: Path) -> None:
    for line in written(tmp_path, EVENTS):
        assert schemas.problems("ledger", line) == []


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (3, {"positions": [[1, TOKENS + 1]], "nll": None}),
        (3, {"positions": [[3, 1]], "nll": None}),
        (3, {"positions": [[-1, 2]]}),
        (3, {"positions": [[1, 2, 3]]}),
        (3, {"nll": [1.0]}),
        (3, {"nll": [1.0, float("nan"), 2.0]}),
        (3, {"sum": float("inf")}),
        (3, {"sum": 10**400}),
        (3, {"sum": "3.5"}),
        (3, {"grad": 1}),
        (3, {"at": True}),
        (3, {"at": -1}),
        (3, {"at": None}),
        (3, {"rank": 5_000}),
        (3, {"rank": {}}),
        (3, {"weights": "0000ABCD"}),
        (3, {"weights": "x" * 100_000}),
        (3, {"comment": "all is well"}),
        (3, {"how": ["x"] * 41}),
        (4, {"what": "magic"}),
        (0, {"path": "x" * 501}),
        (0, {"phase": "afterwards"}),
        (6, {"begins": "1"}),
        (8, {"last": 2.5}),
        (8, {"mean": [1]}),
    ],
)
def test_what_is_damaged_is_counted_and_left_out(tmp_path: Path, number: int, change: dict[str, Any]) -> None:
    events = copy.deepcopy(EVENTS)
    events[number] |= change
    header, *lines = written(tmp_path, events, damaged=2)
    assert (header["lines"], header["rejected"], header["unreadable"]) == (len(EVENTS) - 1, 1, 2)
    assert len(lines) == len(EVENTS) - 1


def test_a_script_cannot_write_the_first_line_or_a_kind_of_its_own(tmp_path: Path) -> None:
    forged = [HEADER | {"lines": 0, "at": 0}, {"kind": "verdict", "at": 0, "legal": True}]
    header, *lines = written(tmp_path, [*forged, *EVENTS])
    assert (header, len(lines)) == (HEADER, len(EVENTS))


@pytest.mark.parametrize("key", [key for key in EVENTS[3] if key not in {"kind", "form", "how"}])
def test_a_line_without_a_key_is_rejected(tmp_path: Path, key: str) -> None:
    events = copy.deepcopy(EVENTS)
    del events[3][key]
    assert written(tmp_path, events)[0]["rejected"] == 1


@pytest.mark.parametrize("text", ["", "{", "[]\n", json.dumps(EVENTS[0]) + "\n", '{"kind": "ledger"}\n', "\u00e9\n"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / ledgerfile.NAME
    path.write_text(text, encoding="utf-8")
    if not text:
        assert list(ledgerfile.read(path)) == []
        return
    with pytest.raises(HarnessError, match=r"ledger\.jsonl"):
        list(ledgerfile.read(path))


def test_a_line_that_was_changed_later_is_named(tmp_path: Path) -> None:
    written(tmp_path, EVENTS)
    path = tmp_path / ledgerfile.NAME
    lines = path.read_text(encoding="ascii").splitlines()
    lines[4] = lines[4].replace("socket.connect", "x" * 100)
    path.write_text("\n".join([*lines, ""]), encoding="ascii")
    with pytest.raises(HarnessError, match=r"ledger\.jsonl:5: not a line"):
        list(ledgerfile.read(path))
    with pytest.raises(HarnessError, match="no readable ledger"):
        list(ledgerfile.read(tmp_path / "nothing"))


def test_a_header_that_is_not_valid_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ledger\.jsonl"):
        ledgerfile.write(tmp_path / ledgerfile.NAME, HEADER | {"ranks": 0}, [])
    assert list(tmp_path.iterdir()) == []


def test_the_schema_names_every_kind_and_nothing_else() -> None:
    document = schemas.load("ledger")
    named = {each["$ref"].rpartition("/")[2] for each in document["oneOf"]}
    assert named == ledgerfile.kinds() | {ledgerfile.HEADER}
    for kind in named:
        assert document["$defs"][kind]["properties"]["kind"]["const"] == kind


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_quick_checks_agree_with_the_library(data: st.DataObject) -> None:
    event = copy.deepcopy(data.draw(st.sampled_from(EVENTS)))
    event |= {"rank": 0, "at": 3}
    for key in data.draw(st.lists(st.sampled_from([*event, "other"]), max_size=2)):
        event[key] = data.draw(VALUES)
    document = schemas.load("ledger")
    kind = event["kind"] if isinstance(event["kind"], str) else ""
    schema = document["$defs"].get(kind if kind in ledgerfile.kinds() else "file")
    said = jsonschema.Draft202012Validator({**schema, "$defs": document["$defs"]}).is_valid(event)
    assert shapes.compiled(schema, document)(event) is said


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"type": "object", "properties": {}},
        {"$ref": "#/$defs/x", "type": "string"},
        {"const": 1},
    ],
)
def test_a_schema_beyond_what_is_known_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key"):
        shapes.compiled(schema, {"$defs": {"x": {}}})


def test_as_many_lines_as_a_tracer_writes_are_checked(tmp_path: Path) -> None:
    # As many events and numbers as the tracer ever writes: 12,000 of them, and 1.5 MB of numbers.
    score = EVENTS[3] | {"positions": [[0, 10], [20, 22]], "nll": [1.25] * 12}
    events = [score | {"at": number} for number in range(12_000)]
    header = ledgerlines.write(ran(events), tmp_path / ledgerfile.NAME, "train_gpt.py", TOKENS)
    assert header["lines"] == 12_000
