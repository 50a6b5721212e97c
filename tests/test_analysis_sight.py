"""Scoring code that switches the causal mask off: whose loss counts, and what only looks like it."""

from __future__ import annotations

import pytest

from harness.analysis.sight import both_ways
from tests.test_analysis_configuration import program

SCRIPT = """
    import torch.nn.functional as F
    class Layer:
        def forward(self, x, causal=True):
            return F.scaled_dot_product_attention(x, x, x, is_causal={handed})

    def {name}(model, covered, tokens, cache):
        loss_sum = other_sum = 0.0
        for part in tokens:
            logits = {logits}
            loss = F.cross_entropy(logits.flatten(0, 1), part, reduction="sum")
            {counted}
            logits = model(covered, causal=False)
            (F.cross_entropy(logits, part) * 2).backward()
        return loss_sum
"""
OFF = "model(covered, causal=False)"
COUNTED = "loss_sum += loss.item()"


@pytest.mark.parametrize(
    ("name", "handed", "logits", "counted", "found"),
    [
        ("evaluate", "causal", OFF, COUNTED, 1),
        ("evaluate", "causal", f"{OFF}.float()", "bits = loss / 0.69; loss_sum += bits", 1),
        # With the mask, with a memory, with a flag that the model does with what it will.
        ("evaluate", "causal", "model(covered)", COUNTED, 0),
        ("evaluate", "causal", "model(covered, causal=True)", COUNTED, 0),
        ("evaluate", "causal", "model(covered, kv_cache=cache, causal=False)", COUNTED, 0),
        ("evaluate", "causal", "model(covered, cache, causal=False)", COUNTED, 0),
        ("evaluate", "True", OFF, COUNTED, 0),
        # Training, a gradient, and a loss that is not counted.
        ("train", "causal", OFF, COUNTED, 0),
        ("evaluate", "causal", OFF, "loss.backward(); loss_sum += loss.item()", 0),
        ("evaluate", "causal", OFF, "print(loss)", 0),
    ],
)
def test_a_score_of_both_sides(name: str, handed: str, logits: str, counted: str, found: int) -> None:
    source = SCRIPT.format(name=name, handed=handed, logits=logits, counted=counted)
    assert len(list(both_ways(program(source)))) == found


def test_what_a_layer_does_says_nothing() -> None:
    source = """
        import torch.nn.functional as F
        def evaluate(q, k, v, y):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=False)
            loss = F.cross_entropy(out, y)
            loss_sum = 0.0
            loss_sum += loss.item()
    """
    assert not list(both_ways(program(source)))
