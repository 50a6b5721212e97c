"""Shares of bytes: what is a mixture of them, and what only looks like one."""

from __future__ import annotations

import pytest

from harness.analysis.spread import spreads
from tests.test_analysis_configuration import program

SCRIPT = """
    import numpy as np, torch, math
    def mixed(lp, tokens, lens, others, lam):
        count = lens[tokens]
        {share}
        {mixture}
        return -np.log2(p).sum()
"""
REPEATED = (
    "part = np.where(n > 0, np.repeat(lp.astype(np.float64), count) / np.repeat(count.astype(float), count), 0.0)"
)
NAMED = "a, n = 1, 2; rep = np.repeat(lp, count); by = np.repeat(count, count); part = rep / by"
TENSOR = "part = lp.repeat_interleave(count) / count.float().repeat_interleave(count)"
SCALAR = "part = log_p / len(piece)"
MIXED = "p = lam * np.exp(part) + (1 - lam) * np.exp(others)"
BESIDE = "q = torch.exp(part); p = others * (1 - lam) + lam * q"


@pytest.mark.parametrize(
    ("share", "mixture", "count"),
    [
        (REPEATED, MIXED, 1),
        (NAMED, BESIDE, 1),
        (TENSOR, MIXED, 1),
        (SCALAR, MIXED, 1),
        # The mean of a token's bits, and its bytes, mix with nothing.
        (REPEATED, "p = np.exp(part)", 0),
        (SCALAR, "p = math.exp(part) + 1e-9", 0),
        # A mean loss, and a share of something else.
        ("part = loss / len(tokens)", MIXED, 0),
        ("part = np.repeat(lp, count) / np.repeat(others, count)", MIXED, 0),
        ("part = lp / temperature", MIXED, 0),
        # A perplexity, and its running mean.
        ("part = nll / len(tokens)", MIXED, 0),
        (SCALAR, "p = 1.0 + lam * np.exp(part)", 0),
    ],
)
def test_a_mixture_of_shares(share: str, mixture: str, count: int) -> None:
    found = list(spreads(program(SCRIPT.format(share=share, mixture=mixture))))
    assert len(found) == count
    assert all(each.steps[0].location.line == 5 and each.steps[1].location.line == 6 for each in found)


def test_the_sum_may_stand_in_an_inner_function() -> None:
    source = SCRIPT.format(share=REPEATED, mixture="q = np.exp(part)") + (
        "\n        def at(weight):\n            return weight * q + (1 - weight) * others\n"
    )
    (found,) = spreads(program(source))
    assert found.steps[1].location.line == 10
