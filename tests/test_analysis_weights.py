"""Weights of mixtures: those that are read at the realized token, and those of the context."""

from __future__ import annotations

import pytest

from harness.analysis.weights import weighted
from tests.test_analysis_configuration import program

SCRIPT = """
    import math, numpy as np, torch, torch.nn.functional as F
    def {name}(model, table, x, y, rows, base):
        loss = F.cross_entropy(model(x), y, reduction="none")
        p = torch.exp(-loss)
        q = table.probability(x, y)
        row = model(x).softmax(-1)
        {weight}
        {mixture}
        return nll.sum()
"""
MIXED = "out = (1 - w) * p + w * q; nll = -torch.log(out.clamp(min=1e-9))"
INLINE = "nll = -torch.log(q * w + p * (1.0 - w))"


@pytest.mark.parametrize(
    ("weight", "mixture", "found"),
    [
        ("w = base * (q * 3.0).clamp(max=1.0)", MIXED, 1),
        ("w = torch.sigmoid(base - loss)", MIXED, 1),
        ("w = torch.where(q > 0, 0.3, 0.0)", INLINE, 1),
        ("strength = q.sqrt(); w = 0.5 * strength", INLINE, 1),
        # Weights of the context: constants, entropies, the row's best, what the table knows of the place.
        ("w = base", MIXED, 0),
        ("w = torch.sigmoid(-(row * row.log()).sum(-1))", MIXED, 0),
        ("w = row.max(dim=-1).values", MIXED, 0),
        ("w = table.confidence(x)", MIXED, 0),
        # Losses of earlier tokens: a mean, a shifted row, a running sum.
        ("w = torch.sigmoid(loss.mean())", MIXED, 0),
        ("w = loss[:-1]", MIXED, 0),
        ("w = loss.cumsum(0) - loss", MIXED, 0),
        ("total = p.cumsum(0); w = total - p", MIXED, 0),
        # A number of the context that is in a part, too.
        ("c = table.confidence(x); q = q * c; w = 0.5 * c", MIXED, 0),
        # Another value under the same name.
        ("w = torch.sigmoid(q); q = table.probability(x, y)", MIXED, 0),
        # Whole rows, which may be normalized; a mean of losses.
        ("p, q = row, table.row(x); w = q.clamp(max=0.5)", MIXED, 0),
        ("w = q", "nll = (1 - w) * p + w * q", 0),
    ],
)
def test_a_weight_of_the_realized_token(weight: str, mixture: str, found: int) -> None:
    source = SCRIPT.format(name="evaluate", weight=weight, mixture=mixture)
    assert len(list(weighted(program(source)))) == found
    assert not list(weighted(program(SCRIPT.format(name="train", weight=weight, mixture=mixture))))


@pytest.mark.parametrize(
    "taken", ["row.gather(1, y[:, None]).squeeze(1)", "row[rows, y]", "probs[y]", "row.gather(1, x[:, None])"]
)
def test_a_probability_may_be_taken_out_of_a_row(taken: str) -> None:
    weight = f"probs = row; p = {taken}; w = 1.0 - p"
    found = list(weighted(program(SCRIPT.format(name="evaluate", weight=weight, mixture=MIXED))))
    assert len(found) == int("x[" not in taken)
    assert all([step.location.line for step in each.steps] == [8, 9] for each in found)
