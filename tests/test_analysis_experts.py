"""Entropies among the losses of a mixture."""

from __future__ import annotations

import pytest

from harness.analysis.experts import entropies
from tests.test_analysis_configuration import program

SCRIPT = """
    import torch
    def losses(lp, p, one, two):
        {value}
        return torch.stack([{parts}], dim=-1)
    def mixed(experts, weights):
        return ({sign}experts + weights).logsumexp(dim=-1)
    def score(lp, p, one, two, weights):
        experts = losses(lp, p, one, two)
        return mixed(experts, weights)
"""
ENTROPY = "h = -(lp.exp() * lp).sum(-1)"


@pytest.mark.parametrize(
    ("value", "parts", "sign", "count"),
    [
        (ENTROPY, "one, two, h", "-", 1),
        ("h = torch.sum(p * torch.log(p), dim=-1)", "h, one, two", "-", 1),
        # A single loss beside it, a mean of losses, features of a gate, and what no mixture takes.
        (ENTROPY, "one, h", "-", 0),
        ("h = (p * one).sum(-1)", "one, two, h", "-", 0),
        (ENTROPY, "one, two, h", "", 0),
        (ENTROPY, "one, two", "-", 0),
    ],
)
def test_an_entropy_among_losses(value: str, parts: str, sign: str, count: int) -> None:
    found = list(entropies(program(SCRIPT.format(value=value, parts=parts, sign=sign))))
    assert [[step.location.line for step in each.steps] for each in found] == [[4, 5]] * count


def test_what_a_gate_is_given_is_not_mixed() -> None:
    source = SCRIPT.format(value=ENTROPY, parts="one, two, h", sign="-")
    features = source.replace("return mixed(experts, weights)", "return mixed(other, weights) * gate(experts)")
    assert list(entropies(program(features))) == []
