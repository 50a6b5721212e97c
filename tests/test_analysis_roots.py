"""Roots of a token's probability: what is mixed byte by byte, through which functions, and what only looks like one."""

from __future__ import annotations

import pytest

from harness.analysis.roots import roots
from tests.test_analysis_configuration import program

SCRIPT = """
    import math
    def share(p_token, byte_len, floor=1e-6):
        n = int(byte_len)
        part = max(min(p_token, 1.0), 1e-12) ** (1.0 / n)
        peak = max(part, floor)
        return peak / (peak + 255.0 * floor)
    def mix(one, other, lam):
        return (1.0 - lam) * one + lam * other, lam
    def evaluate(probs, pieces, model):
        total = 0.0
        for p, piece in zip(probs, pieces):
            each = share(p_token=float(p), byte_len=len(piece))
            for byte in piece:
                q, _ = mix(one=each, other=model.chance(byte), lam=0.3)
                total -= math.log(q)
        return total
"""


def lines(source: str) -> list[list[int | None]]:
    return [[step.location.line for step in each.steps] for each in roots(program(source))]


def test_a_root_is_followed_from_function_to_function() -> None:
    assert lines(SCRIPT) == [[5, 9]]
    direct = SCRIPT.replace(
        "q, _ = mix(one=each, other=model.chance(byte), lam=0.3)", "q = 0.7 * each + 0.3 * model.chance(byte)"
    )
    assert lines(direct) == [[5, 15]]
    by_place = SCRIPT.replace("one=each, other=", "each, ").replace(", lam=0.3)", ", 0.3)")
    assert lines(by_place) == [[5, 9]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Its own bytes multiply back to the token.
        ("q, _ = mix(one=each, other=model.chance(byte), lam=0.3)", "q = each"),
        # What is mixed is something else.
        ("one=each", "one=model.first(byte)"),
        # A temperature, and a geometric mean over tokens.
        ("1.0 / n", "1.0 / temperature"),
        ("byte_len", "tokens"),
        ("** (1.0 / n)", "** n"),
        # A row that is divided by its own sum, and a running mean that weighs something else.
        ("return peak / (peak + 255.0 * floor)", "return peak / peak.sum(-1)"),
        (
            "q, _ = mix(one=each, other=model.chance(byte), lam=0.3)",
            "seen = 0.9 * seen + 0.1 * each; q = model.chance(byte)",
        ),
        (
            "q, _ = mix(one=each, other=model.chance(byte), lam=0.3)",
            "gate = min(each, 0.5); q = (1 - gate) ** 2 * model.chance(byte) + lam * other",
        ),
        # Whose logarithm nobody takes.
        ("total -= math.log(q)", "total -= q"),
        # No probability.
        ("max(min(p_token, 1.0), 1e-12)", "beta"),
    ],
)
def test_other_powers_are_no_shares(old: str, new: str) -> None:
    assert old in SCRIPT
    assert lines(SCRIPT.replace(old, new)) == []
