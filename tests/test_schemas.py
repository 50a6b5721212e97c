"""The JSON Schemas: well formed themselves, kind to real shapes, strict on real mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import HarnessError
from harness.sources import schemas

FOLDER = Path(__file__).parents[1] / "schemas"
GOOD: dict[str, Any] = {
    "name": "A run",
    "author": "Somebody",
    "github_id": "somebody",
    "date": "2026-04-01",
    "val_bpb": 1.25,
}


def changed(**keys: Any) -> dict[str, Any]:
    document = GOOD | keys
    return {key: value for key, value in document.items() if value != "(absent)"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_every_schema_is_a_valid_schema(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(document)


@pytest.mark.parametrize(
    "document",
    [
        changed(),
        changed(date="2026-03-18T14:56:29Z", val_loss=None, bytes_total=15_900_000, bytes_code=None),
        changed(val_bpb="(absent)", mean_val_bpb=1.2),
        changed(val_bpb="(absent)", mean_bpb=1.2, seeds={"0": {"val_bpb": 1.2, "train_time_ms": 588_004}}),
        changed(seeds=[1, 2, 3], seed_results={"1": {"val_bpb": 1.2, "source": "a note"}, "2": 1.3}),
        changed(seed_scores=[1.1, 1.2], eval_time_seconds=[83, 84.5], val_bpb_std=0.0),
        changed(artifact_bytes={"1": 15_000_000}, hardware=["8xH100"], compliance={"ok": True}, anything=[None]),
        changed(reproduction={"script": "train_gpt.py", "artifact": "out/*.bin", "evaluate": {"EVAL_ONLY": "1"}}),
        changed(validation_split={"name": "demo_sp1024", "tokens": 47_000, "bytes": 130_000}),
    ],
)
def test_real_shapes_are_accepted(document: dict[str, Any]) -> None:
    assert schemas.problems("submission", document) == []


@pytest.mark.parametrize(
    ("key", "value", "pointer"),
    [
        ("name", "(absent)", ""),
        ("author", "(absent)", ""),
        ("github_id", "(absent)", ""),
        ("date", "(absent)", ""),
        ("val_bpb", "(absent)", ""),
        ("val_bpb", None, ""),
        ("val_bpb", "TBD", "/val_bpb"),
        ("val_bpb", -1.0, "/val_bpb"),
        ("val_bpb", True, "/val_bpb"),
        ("val_bpb", float("nan"), "/val_bpb"),
        ("val_loss", float("inf"), "/val_loss"),
        ("author", "  ", "/author"),
        ("date", "next week", "/date"),
        ("date", "2026-02-31", "/date"),
        ("date", "2026-02-31T10:00:00Z", "/date"),
        ("date", 20260401, "/date"),
        ("bytes_total", "15300849", "/bytes_total"),
        ("bytes_total", -5, "/bytes_total"),
        ("bytes_total", 1.5, "/bytes_total"),
        ("val_bpb_std", -0.1, "/val_bpb_std"),
        ("seeds", ["one"], "/seeds"),
        ("seed_results", {"1": {"val_bpb": "TBD"}}, "/seed_results"),
        ("eval_time_seconds", -3, "/eval_time_seconds"),
        ("reproduction", {}, "/reproduction"),
        ("reproduction", {"script": "../other.py"}, "/reproduction/script"),
        ("reproduction", {"script": "/bin/sh"}, "/reproduction/script"),
        ("reproduction", {"script": "a.py", "environment": {"SEED": 1}}, "/reproduction/environment/SEED"),
        ("reproduction", {"script": "a.py", "shell": "x"}, "/reproduction"),
        ("validation_split", {"name": "demo", "tokens": 0, "bytes": 1}, "/validation_split/tokens"),
    ],
)
def test_real_mistakes_are_rejected_at_their_place(key: str, value: Any, pointer: str) -> None:
    found = schemas.problems("submission", changed(**{key: value}))
    assert pointer in [place for place, _ in found]


def test_a_problem_says_what_was_expected_without_quoting_much() -> None:
    found = dict(schemas.problems("submission", changed(bytes_total="9" * 500)))
    assert "a whole number above zero" in found["/bytes_total"]
    assert len(found["/bytes_total"]) < 150
    assert dict(schemas.problems("submission", changed(author="\u202e\x1b[31m", date="\u202e\x1b[31m")))[
        "/date"
    ].isascii()


def test_pointers_escape_their_steps() -> None:
    document = changed(seed_results={"a/b~c": {"val_bpb": float("nan")}})
    assert "/seed_results/a~1b~0c/val_bpb" in [place for place, _ in schemas.problems("submission", document)]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_document_gets_an_answer(document: Any) -> None:
    found = schemas.problems("submission", document)
    assert len(found) <= schemas.PROBLEMS_SHOWN
    assert isinstance(document, dict) or found


def test_deep_nesting_is_a_problem_not_a_crash() -> None:
    document: list[Any] = []
    for _ in range(50_000):
        document = [document]
    assert schemas.problems("submission", document)


def test_an_unknown_schema_is_named() -> None:
    with pytest.raises(HarnessError, match=r"nothing\.schema\.json"):
        schemas.load("nothing")
