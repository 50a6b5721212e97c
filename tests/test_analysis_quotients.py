"""Mixtures whose weights are made of the probabilities that they weigh, and those whose weights are not."""

from __future__ import annotations

import pytest

from harness.analysis.quotients import self_weighted
from tests.test_analysis_configuration import program

SUMS = """
    def evaluate(experts, weights, tokens):
        total = 0.0
        for pos, token in enumerate(tokens):
            above = below = 0.0
            for i, expert in enumerate(experts):
                p = max(1e-9, expert.prob(tokens, token))
                base = {base}
                below += {below}
                above += base * p
            total -= math.log2(above / below)
        return total
"""
ARRAYS = """
    def evaluate(experts, weights, tokens):
        total = 0.0
        for pos, token in enumerate(tokens):
            probs = np.array([expert.prob(tokens, token) for expert in experts])
            {mixture}
        return total
"""
SELF = "w = weights * np.power(probs, 2); s = float(w.sum()); w = w / s; total -= math.log(np.dot(w, probs))"
LATER = "total -= math.log(np.dot(weights, probs)); w = weights * probs ** 2; weights = w / w.sum()"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (SUMS.format(base="weights[i] * p ** 2", below="base"), 1),
        (SUMS.format(base="p * float(weights[i])", below="base"), 1),
        (SUMS.format(base="weights[i]", below="base"), 0),  # the weights are known before the token
        (SUMS.format(base="weights[i] * p", below="weights[i]"), 0),
        (ARRAYS.format(mixture=SELF), 1),
        (ARRAYS.format(mixture=LATER), 0),  # a posterior, for the next token
        (ARRAYS.format(mixture=SELF.replace("np.power(probs, 2)", "trust")), 0),
        (ARRAYS.format(mixture=SELF).replace("expert.prob(tokens, token)", "expert.row(tokens)"), 0),
        (SUMS.format(base="weights[i] * p ** 2", below="base").replace("evaluate", "report"), 0),
    ],
)
def test_a_weight_that_the_realized_token_raises(source: str, found: int) -> None:
    assert len(list(self_weighted(program(source)))) == found
