"""Which evaluation a label names, and probes that judged another one than the claim's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.facts.build_stated import Claimed
from harness.facts.probe import ProbeFacts
from harness.facts.scorekinds import held_against, kind
from harness.model import Located, Missing
from tests import factories, probefacts
from tests.factories import at

SAME = {"result": "same", "reason": "the artifact is the same", "artifact": "work/final_model.ptz"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return probefacts.script_folder(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("final_int8_zlib_roundtrip_exact", "final_int6_lzma_roundtrip", True),
        ("final_int6_sliding_window_s64_exact", "final_mixed_quant_zlib_sliding_window stride:32", True),
        ("final_int8_zlib_roundtrip", "val_bpb", True),
        ("quantized_ttt_phased", "quantized_ttt", False),
        ("legal_ttt_exact", "final_int6_sliding_window_exact", False),
        ("final_ngram", "final_int8_zlib_roundtrip", False),
    ],
)
def test_kinds(first: str, second: str, *, alike: bool) -> None:
    assert (kind(first) == kind(second)) is alike


def held(folder: Path, claimed: str, printed: list[str], bits: float = 1.2) -> ProbeFacts:
    """A probe that printed some scores, against logs that print 1.2 under a label."""
    headline = factories.score(1.2, label=claimed)
    run = factories.run(1337, headline=at(headline), scores=(factories.score(1.1, label="diagnostic"), headline))
    experiments: dict[str, Any] = {"ledger": probefacts.LEDGER, "non_interference": SAME}
    made = probefacts.facts(folder, {"labels": printed}, experiments=experiments)
    claims = factories.manifest(val_bpb=at(bits))
    found = held_against(made, (run,), Claimed(claims, factories.submission().readme))
    assert isinstance(found, ProbeFacts)
    return found


def test_experiments_on_another_score_say_nothing_of_the_claim(folder: Path) -> None:
    found = held(folder, "legal_ttt_exact", ["final_int6_sliding_window_exact", "final_int8_zlib_roundtrip"])
    for each in (found.ledger, found.flips, found.two_ranks):
        assert isinstance(each, Missing)
        assert "`legal_ttt_exact`" in each.reason
        assert "`final_int6_sliding_window_exact` and `final_int8_zlib_roundtrip` alone" in each.reason
    # What is in the artifact is in it, whatever is scored.
    assert isinstance(found.non_interference, Located)


@pytest.mark.parametrize(
    ("claimed", "printed"),
    [
        ("legal_ttt_exact", ["final_int6_sliding_window_exact", "legal_ttt"]),
        ("final_int8_zlib_roundtrip", ["final_int6_zstd_roundtrip"]),
        ("final_int8_zlib_roundtrip", []),
    ],
)
def test_a_score_of_the_claimed_kind_is_the_claim_s(folder: Path, claimed: str, printed: list[str]) -> None:
    assert isinstance(held(folder, claimed, printed).ledger, Located)


def test_a_claim_that_no_log_prints_is_held_against_the_headline(folder: Path) -> None:
    assert isinstance(held(folder, "legal_ttt", ["final_int8"], bits=1.5).ledger, Missing)
    assert isinstance(held(folder, "legal_ttt", ["legal_ttt"], bits=1.5).ledger, Located)


def test_no_probe_stays_none() -> None:
    missing = Missing("no evidence of a probe was given")
    facts = factories.submission()
    assert held_against(missing, facts.runs, Claimed(facts.claims, facts.readme)) is missing
