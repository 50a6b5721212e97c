"""Mixtures that only tokens of a table pay for, and those that every token does."""

from __future__ import annotations

import pytest

from harness.analysis.onhits import on_hits
from tests.test_analysis_configuration import program

SCRIPT = """
    import math
    def {name}(model, targets, cache):
        total = 0.0
        for place, target_tok in enumerate(targets):
            p = model(place)[target_tok]
            lam = 0.2
            {before}
            {test}
                {mixed}
            total -= math.log(p)
        return total
"""
COUNT = "seen = cache[place].get(target_tok, 0)"
HIT = "if seen > 0:"
MIXED = "p = (1.0 - lam) * p + lam * seen / cache[place].total"


@pytest.mark.parametrize(
    ("name", "before", "test", "mixed", "found"),
    [
        ("evaluate", COUNT, HIT, MIXED, 1),
        ("evaluate", "row = cache[place]; seen = row[target_tok]", HIT, MIXED, 1),
        ("evaluate", COUNT, HIT, "p = math.exp(math.log(p) + math.log(1 - lam)) + lam * seen", 1),
        # By a share that its logarithm adds.
        ("evaluate", COUNT, HIT, "q = lam * seen / 9; p = math.exp(math.log(p) + math.log(1 - lam)) + q", 1),
        # The others pay elsewhere; all tokens but those of no bytes do; what is mixed is a number for a report.
        ("evaluate", COUNT, HIT, f"{MIXED}; total -= math.log(p)\n                continue", 0),
        ("evaluate", "seen = widths[target_tok]", HIT, "p = (1.0 - lam) * p + lam * cache[place].share", 0),
        ("evaluate", COUNT, HIT, "lam = 0.99 * lam + (1 - lam) * 1.0", 0),
        # Those that were seen share 1 - lam, the others have lam.
        ("evaluate", COUNT, HIT, "p = (1.0 - lam) * seen / cache[place].total", 0),
        ("evaluate", COUNT, HIT, "share = seen / 9; p = (1.0 - lam) * share", 0),
        # Everybody pays, or the context decides.
        ("evaluate", f"{COUNT}; share = 0.0", HIT, "share = seen / cache[place].total", 0),
        ("evaluate", COUNT, HIT, f"{MIXED}\n            else:\n                p = (1.0 - lam) * p", 0),
        ("evaluate", "seen = cache[place].get(place, 0)", HIT, MIXED, 0),
        ("evaluate", "seen = cache[place].total", HIT, MIXED, 0),
        ("evaluate", COUNT, "if lam > 0:", MIXED, 0),
        ("train", COUNT, HIT, MIXED, 0),
    ],
)
def test_who_pays_for_a_mixture(name: str, before: str, test: str, mixed: str, found: int) -> None:
    source = SCRIPT.format(name=name, before=before, test=test, mixed=mixed)
    assert len(list(on_hits(program(source)))) == found
