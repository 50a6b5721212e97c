"""What a manifest claims, under every name and in every shape."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from harness.facts.build_claims import build_claims
from harness.facts.claims import DeclaredSplit, ManifestClaims
from harness.model import Located, Location, Missing
from harness.sources import manifest
from tests.records import value


def parse_claims(document: dict[str, Any]) -> ManifestClaims:
    return build_claims(manifest.read(json.dumps(document, indent=1).encode(), "submission.json"), "")


def table(claims: ManifestClaims) -> list[tuple[Any, ...]]:
    return [
        (value(row.seed), value(row.val_bpb), value(row.artifact_bytes), value(row.steps), value(row.eval_seconds))
        for row in claims.seeds
    ]


def test_claims_under_their_synonyms() -> None:
    claims = parse_claims(
        {
            "name": "A\u202eB",
            "author": "x",
            "github_id": "y",
            "date": "2026-03-19T10:00:00Z",
            "mean_val_bpb": 1.5,
            "pre_quant_val_bpb": 1.1,
            "artifact_bytes_mean": 15427455.6,
            "code_bytes": 70,
            "val_bpb_std": True,
        }
    )
    assert value(claims.name) == "A\ufffdB"
    assert value(claims.date) == dt.date(2026, 3, 19)
    assert value(claims.val_bpb) == 1.5
    assert claims.val_bpb == Located(1.5, Location("submission.json", 6, "/mean_val_bpb"))
    assert (value(claims.bytes_total), value(claims.bytes_code)) == (15427456, 70)
    assert isinstance(claims.val_bpb_std, Missing)
    assert isinstance(claims.track, Missing)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {
                "seeds": [1, 2],
                "seed_results": {"1": {"val_bpb": 1.2, "artifact_bytes": 5, "steps": 9, "eval_time_s": 3.5}},
            },
            [(1, 1.2, 5, 9, 3.5)],
        ),
        ({"seeds": {"0": {"val_bpb": 1.2, "bytes_total": 5, "eval_time_ms": 500}}}, [(0, 1.2, 5, None, 0.5)]),
        ({"seed_results": [{"seed": 7, "val_bpb": 1.3}, {"val_bpb": 9}]}, [(7, 1.3, None, None, None)]),
        ({"seed_results": {"3": 1.25, "mean": 1.3}}, [(3, 1.25, None, None, None)]),
        (
            {"seeds": [4], "results": {"4": {"val_bpb": 1.4, "artifact_bytes": 6, "steps": 8}}},
            [(4, 1.4, 6, 8, None)],
        ),
        ({"seeds": [4], "results": {"val_bpb": 1.4, "code_bytes": 6}}, [(4, None, None, None, None)]),
        (
            {"seeds": [42, 0], "seed_scores": [1.1, 1.2], "eval_time_seconds": [80, 81]},
            [(42, 1.1, None, None, 80.0), (0, 1.2, None, None, 81.0)],
        ),
        ({"seeds": [42, 0], "seed_scores": [1.1]}, [(42, None, None, None, None), (0, None, None, None, None)]),
        ({"seed": 1337}, [(1337, None, None, None, None)]),
        ({"seeds": 3}, []),
        ({"seeds": None, "seed_results": "none"}, []),
        ({"seeds": [True, -1, "x", 1.5]}, []),
    ],
)
def test_seed_tables_of_every_shape(document: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    assert table(parse_claims(document)) == expected


def test_seed_values_have_pointers() -> None:
    row = parse_claims({"seed_results": {"1": {"val_bpb": 1.2}}}).seeds[0]
    assert row.val_bpb == Located(1.2, Location("submission.json", 4, "/seed_results/1/val_bpb"))
    assert isinstance(row.steps, Missing)
    assert row.steps.location == Location("submission.json", 3, "/seed_results/1")


def test_a_declared_split() -> None:
    split = {"name": "demo", "tokens": 9, "bytes": 30}
    assert value(parse_claims({"validation_split": split}).validation_split) == DeclaredSplit("demo", 9, 30)
    assert isinstance(parse_claims({"validation_split": {"name": "demo"}}).validation_split, Missing)
    assert isinstance(parse_claims({}).validation_split, Missing)


def test_claims_that_do_not_parse_are_missing_with_the_reason() -> None:
    broken = build_claims(manifest.read(b"{", "submission.json"), "")
    assert isinstance(broken.val_bpb, Missing)
    assert broken.val_bpb.reason == "submission.json does not parse"
    absent = build_claims(None, "no file")
    assert absent.name == Missing("no file")
