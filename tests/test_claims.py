"""The claims of submission.json, in the shapes in which people state them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.facts.build_claims import build_claims
from harness.facts.claims import ManifestClaims, SeedClaim
from harness.facts.claimvalues import number
from harness.model import Fact
from harness.sources.manifest import read
from tests.records import value


def claims(**document: Any) -> ManifestClaims:
    return build_claims(read(json.dumps(document, indent=1).encode(), "submission.json"), "")


def rows(found: ManifestClaims) -> list[tuple[Any, ...]]:
    def row(claim: SeedClaim) -> tuple[Any, ...]:
        facts: tuple[Fact[Any], ...] = (claim.seed, claim.val_bpb, claim.artifact_bytes, claim.eval_seconds)
        return tuple(value(fact) for fact in facts)

    return [row(claim) for claim in found.seeds]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2345", 1.2345),
        (" 15,900,123 bytes", 15_900_123.0),
        ("1.2345 ± 0.0007", 1.2345),
        ("1.2345 +/- 0.0007", 1.2345),
        ("1.2345 BPB", 1.2345),
        ("15.9MB", None),
        ("15.9 MiB", None),
        ("~1.23", None),
        ("pending", None),
        ("1.2345 (seed 7)", None),
        ("1.23, 1.24", None),
        ("", None),
    ],
)
def test_numbers_written_as_text(text: str, expected: float | None) -> None:
    assert value(claims(val_bpb=text).val_bpb) == expected


@given(st.one_of(st.text(max_size=40), st.floats(), st.integers(), st.none(), st.booleans()))
def test_any_value_is_a_number_or_a_reason(found: Any) -> None:
    read = number(found)
    assert math.isfinite(read) if isinstance(read, float) else read


def test_a_table_under_a_name_gives_way_to_the_next_name() -> None:
    found = claims(seeds=[7, 8], val_bpb=[1.25, 1.27], mean_val_bpb=1.26, artifact_bytes={"7": 15_900_001})
    assert value(found.val_bpb) == 1.26
    assert value(found.bytes_total) is None
    assert rows(found) == [(7, 1.25, 15_900_001, None), (8, 1.27, None, None)]
    assert found.seeds[0].artifact_bytes.location is not None
    assert found.seeds[0].artifact_bytes.location.pointer == "/artifact_bytes/7"


@pytest.mark.parametrize(
    "document",
    [
        {"seed_results": {"7": {"val_bpb": 1.25}, "8": {"val_bpb": 1.27}}},
        {"seed_results": {"seed_7": 1.25, "seed_8": 1.27}},
        {"per_seed": [{"seed": "7", "val_bpb": "1.25"}, {"seed": 8, "val_bpb": 1.27}]},
        {"results": {"7": {"val_bpb": 1.25, "artifact_bytes": {"model": 1}}, "8": {"val_bpb": 1.27}}},
        {"seed_7": {"val_bpb": 1.25}, "seed_8": {"val_bpb": 1.27}, "seeding": {"val_bpb": 3}},
        {"val_bpb_by_seed": {"7": 1.25, "8": 1.27}},
        {"val_bpb_seeds": {"7": 1.25, "8": 1.27}},
        {"seeds": [7, 8], "val_bpb_seeds": [1.25, 1.27]},
        {"seeds": ["7", "8"], "seed_bpbs": [1.25, 1.27]},
    ],
)
def test_tables_of_seeds(document: dict[str, Any]) -> None:
    assert rows(claims(**document)) == [(7, 1.25, None, None), (8, 1.27, None, None)]


def test_columns_beside_a_table() -> None:
    found = claims(
        seed_results={"7": 1.25},
        artifact_bytes_by_seed={"7": 15_900_001},
        eval_time_ms_by_seed={"7": 400_000},
        val_bpb_seeds=[1.0],
    )
    assert rows(found) == [(7, 1.25, 15_900_001, 400.0)]


def test_variants_named_after_a_seed_are_no_seeds() -> None:
    assert claims(results={"slot_seed7": {"val_bpb": 1.25}, "baseline_seed7": {"val_bpb": 1.3}}).seeds == ()


def test_people_as_objects() -> None:
    found = claims(author={"name": "Ada", "github": "ada"})
    assert (value(found.author), value(found.github_id)) == ("Ada", "ada")
    several = claims(authors=[{"name": "Ada", "github_id": "ada"}, {"name": "Bo", "github_id": "bo"}])
    assert (value(several.author), value(several.github_id)) == ("Ada, Bo", "ada, bo")
    assert value(claims(author=["Ada", "Bo"]).github_id) is None
