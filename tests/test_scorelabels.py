"""Kinds of scores by their labels, and the choice of a headline."""

from __future__ import annotations

import pytest

from harness.sources.logevents import (
    ScoreEvent,
)
from harness.sources.scorelabels import Kind, choose, kind_of, uncommon_kinds


def score(label: str, bpb: float, *, digits: int = 8, line: int = 1) -> ScoreEvent:
    return ScoreEvent(line, label, 2.0, bpb, digits, digits, None)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("DIAGNOSTIC post_ema", Kind.DIAGNOSTIC),
        ("pre-quantization post-ema", Kind.DIAGNOSTIC),
        ("diagnostic quantized", Kind.DIAGNOSTIC),
        ("Pre-TTT sliding bpb", Kind.DIAGNOSTIC),
        ("EMA BPB", Kind.DIAGNOSTIC),
        ("quantized", Kind.ROUND_TRIP),
        ("Quantized BPB (no TTT)", Kind.ROUND_TRIP),
        ("final_int8_zlib_roundtrip_exact", Kind.ROUND_TRIP),
        ("quantized_sliding_window", Kind.SLIDING),
        ("final_int6_sliding_window_s64_exact", Kind.SLIDING),
        ("quantized_ttt_phased", Kind.ADAPTED),
        ("legal_ttt_exact", Kind.ADAPTED),
        ("final_int8_ttt_lora", Kind.ADAPTED),
        ("val_bpb", Kind.UNNAMED),
        ("final_krause_eval_exact", Kind.ADAPTED),
        ("dynamic_eval", Kind.ADAPTED),
    ],
)
def test_kinds_of_scores(label: str, kind: Kind) -> None:
    assert kind_of(label) is kind


def test_the_headline_is_the_most_final_kind_in_its_most_exact_print() -> None:
    scores = [
        score("DIAGNOSTIC post_ema", 1.1),
        score("final_roundtrip_exact", 1.3, line=2),
        score("final_sliding", 1.25, digits=4, line=3),
        score("final_sliding_exact", 1.25001234, line=4),
        # Printed last, but it is the earlier kind.
        score("final_int8_zlib_roundtrip_exact", 1.25001234, line=5),
    ]
    assert choose(scores) is scores[3]
    assert choose(scores[:1]) is None
    assert choose([]) is None


def test_adaptation_counts_unless_it_makes_things_worse() -> None:
    sliding, better, worse = (
        score("final_sliding", 1.2),
        score("legal_ttt", 1.1, line=2),
        score("legal_ttt", 1.4, line=2),
    )
    assert choose([sliding, better]) is better
    assert choose([sliding, worse]) is sliding
    assert choose([worse]) is worse


def test_a_kind_that_few_logs_report_is_an_experiment() -> None:
    logs = [{Kind.SLIDING, Kind.ADAPTED}, {Kind.SLIDING}, {Kind.SLIDING}, set()]
    uncommon = uncommon_kinds(logs)
    assert Kind.ADAPTED in uncommon
    assert Kind.SLIDING not in uncommon
    sliding, adapted = score("final_sliding", 1.2), score("legal_ttt", 1.1, line=2)
    assert choose([sliding, adapted], uncommon) is sliding
    assert choose([adapted], uncommon) is adapted
