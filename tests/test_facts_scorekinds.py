"""Which evaluation a label names, and probes that judged another one than the claim's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.facts.build_stated import Claimed
from harness.facts.probe import ProbeFacts
from harness.facts.runs import Run
from harness.facts.scorekinds import claimed_labels, held_against, kinds
from harness.model import Located, Missing
from tests import factories, probefacts
from tests.factories import at

SAME = {"result": "same", "reason": "the artifact is the same", "artifact": "work/final_model.ptz"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return probefacts.script_folder(tmp_path)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("final_int8_zlib_roundtrip_exact", {"plain"}),
        ("val_bpb", {"plain"}),
        ("final_int6_sliding_window_s64_exact", {"sliding"}),
        ("[2026-03-23 04:40:41] INFO: final_mixed_quant_zlib_sliding_window", {"sliding"}),
        ("recover/quantized stride64", {"sliding"}),
        ("quantized_ttt_phased", {"training"}),
        ("ttt_sliding:done", {"training"}),
        ("final_int6 (no ttt)", {"plain"}),
        ("final_ngram_cache", {"cache"}),
        ("legal_ttt_ngram", {"training", "cache"}),
        ("ppm_mix", {"cache"}),
        ("final_slot", {"slot"}),
        ("diagnostic pre-quantization post-ema", {"diagnostic"}),
    ],
)
def test_what_was_done_in_an_evaluation(label: str, expected: set[str]) -> None:
    assert kinds(label) == expected


def logged(*scores: tuple[float, str], head: int = -1) -> Run:
    """A run that prints scores; one of them is its headline."""
    made = [factories.score(bits, label=label) for bits, label in scores]
    return factories.run(1337, headline=at(made[head]), scores=tuple(made))


def claiming(bits: float) -> Claimed:
    return Claimed(factories.manifest(val_bpb=at(bits), seeds=()), factories.submission().readme)


@pytest.mark.parametrize(
    ("run", "bits", "expected"),
    [
        # Another score comes to about the claim by chance, and an alias repeats it.
        (logged((1.2004, "quantized_sliding_window"), (1.2, "quantized_ttt")), 1.2, ("quantized_ttt",)),
        (logged((0.9, "ngram_eval"), (0.9, "final_int8_zlib_roundtrip"), head=0), 0.9, ("ngram_eval",)),
        # The claim is not the headline, which is the last of the most final kind.
        (logged((1.2, "final_roundtrip"), (1.1, "final_sliding_window")), 1.2, ("final_roundtrip",)),
        (logged((1.2, "final_roundtrip"), (1.2, "a_sliding_window"), (1.1, "ttt")), 1.2, ("a_sliding_window",)),
        # No log has the claim.
        (logged((1.2, "final_roundtrip"), (1.1, "ttt")), 0.5, ("ttt",)),
    ],
)
def test_whose_score_is_claimed(run: Run, bits: float, expected: tuple[str, ...]) -> None:
    assert claimed_labels((run,), claiming(bits)) == expected


def held(folder: Path, claimed: str, printed: list[str], bits: float = 1.2) -> ProbeFacts:
    """A probe that printed some scores, against logs that print 1.2 under a label."""
    experiments: dict[str, Any] = {"ledger": probefacts.LEDGER, "non_interference": SAME}
    made = probefacts.facts(folder, {"labels": printed}, experiments=experiments)
    found = held_against(made, (logged((1.1, "diagnostic"), (1.2, claimed)),), claiming(bits))
    assert isinstance(found, ProbeFacts)
    return found


def test_experiments_on_another_score_say_nothing_of_the_claim(folder: Path) -> None:
    found = held(folder, "legal_ttt_exact", ["final_int6_sliding_window_exact", "final_int8_zlib_roundtrip"])
    for each in (found.ledger, found.flips, found.two_ranks):
        assert isinstance(each, Missing)
        assert "`legal_ttt_exact`" in each.reason
        assert "but `final_int6_sliding_window_exact`" in each.reason
    # What is in the artifact is in it, whatever is scored.
    assert isinstance(found.non_interference, Located)
    assert found.whole


@pytest.mark.parametrize(
    ("claimed", "printed"),
    [
        ("legal_ttt_exact", ["legal_ttt", "final_int6_sliding_window_exact"]),
        ("legal_ttt_exact", ["final_ttt_ngram"]),
        ("final_int8_zlib_roundtrip", ["final_int6_zstd_roundtrip"]),
        ("final_int8_zlib_roundtrip", []),
    ],
)
def test_a_score_of_the_claimed_kind_is_the_claim_s(folder: Path, claimed: str, printed: list[str]) -> None:
    assert isinstance(held(folder, claimed, printed).ledger, Located)


def test_a_claim_that_no_log_prints_is_held_against_the_headline(folder: Path) -> None:
    assert isinstance(held(folder, "legal_ttt", ["final_int8"], bits=1.5).ledger, Missing)
    assert isinstance(held(folder, "legal_ttt", ["sliding_window", "legal_ttt"], bits=1.5).ledger, Missing)
    assert isinstance(held(folder, "legal_ttt", ["legal_ttt"], bits=1.5).ledger, Located)


def test_no_probe_stays_none() -> None:
    missing = Missing("no evidence of a probe was given")
    facts = factories.submission()
    assert held_against(missing, facts.runs, Claimed(facts.claims, facts.readme)) is missing
