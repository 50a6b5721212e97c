"""Layers that choose among all positions of a sequence, and choices that are none of this."""

from __future__ import annotations

import pytest

from harness.analysis.choosing import chosen
from tests.test_analysis_configuration import program

LAYER = """
    mixer = Mixer()
    class Mixer(nn.Module):
        def {name}(self, x):
            B, T, C = x.shape
            {choice}
            {returned}
"""
OF_SCORES = "s = self.router(x).squeeze(-1); w, i = s.topk(T // 2, dim=1)"
OF_EXPERTS = "p = torch.softmax(self.router(x.reshape(B * T, C)).float(), dim=-1); w, i = p.T.topk(8, dim=1)"
PUT = "out = torch.zeros_like(x); out[i] = self.mlp(x[i]); return out, w.mean()"


@pytest.mark.parametrize(
    ("name", "choice", "returned", "found"),
    [
        ("forward", OF_SCORES, PUT, 1),
        ("forward", "i = torch.argsort(self.score(x)[..., 0])", PUT.replace("w.mean()", "0"), 1),
        ("forward", OF_EXPERTS, PUT, 1),
        ("forward", OF_EXPERTS.replace("p.T.topk(8, dim=1)", "p.topk(8, dim=0)"), PUT, 1),
        # Among experts at each position, among channels, and of another tensor.
        ("forward", OF_EXPERTS.replace("p.T.topk(8, dim=1)", "p.topk(2, dim=-1)"), PUT, 0),
        ("forward", "w, i = self.router(x).topk(2, dim=-1)", PUT, 0),
        ("forward", "w, i = self.table.topk(2, dim=1)", PUT, 0),
        # In training alone, for a report, and in what is no layer.
        ("forward", "if self.training: x = x[self.score(x)[..., 0].argsort(1)]", "return x", 0),
        ("forward", OF_SCORES, "self.seen = i; return x", 0),
        ("summary", OF_SCORES, PUT, 0),
    ],
)
def test_a_choice_among_positions(name: str, choice: str, returned: str, found: int) -> None:
    source = LAYER.format(name=name, choice=choice, returned=returned)
    assert len(list(chosen(program(source)))) == found
