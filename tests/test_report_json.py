"""The JSON document fits its schema, whatever a submission is called."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Location, Report
from harness.report import json as renderer
from harness.sources import schemas
from tests import reports


def test_the_document_fits_the_schema() -> None:
    document = json.loads(renderer.render(reports.report()))
    assert schemas.problems("report", document) == []
    assert document["submissions"][0]["findings"][0]["locations"] == [
        {"path": "train.log", "line": 7},
        {"path": "submission.json", "pointer": "/val_bpb"},
        {"path": "train_gpt.py", "line": 3, "layer": "lzma"},
    ]


@given(st.text())
def test_untrusted_text_survives_as_ascii(name: str) -> None:
    submission = dataclasses.replace(reports.submission(), name=name)
    text = renderer.render(Report("0", "e", (submission,)))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["submissions"][0]["name"] == name


@pytest.mark.parametrize(
    ("key", "value"),
    [("verdict", "guilty"), ("findings", [{"rule": "PG101"}]), ("not_exercised", [{"rule": "101", "command": "x"}])],
)
def test_the_schema_rejects_other_documents(key: str, value: object) -> None:
    document = json.loads(renderer.render(reports.report()))
    document["submissions"][0][key] = value
    assert schemas.problems("report", document)


def test_the_schema_rejects_a_failing_policy_rule() -> None:
    document = json.loads(renderer.render(reports.report()))
    document["submissions"][0]["findings"][0] |= {"verdict": "fail", "status": "policy"}
    assert schemas.problems("report", document)


def test_a_location_carries_only_what_is_known() -> None:
    assert renderer.location_of(Location("a.log")) == {"path": "a.log"}
