"""Layers whose every position has seen a reduction over all of them, and reductions that are none of this."""

from __future__ import annotations

import pytest

from harness.analysis.pooled import pooled
from tests.test_analysis_configuration import program

LAYER = """
    mixer = Mixer()
    class Mixer(nn.Module):
        def {name}(self, x, gate=None):
            {shape}
            u = self.in_proj(x)
            {pooled}
            {returned}
"""
SHAPE = "B, T, C = x.shape"
MEAN = "a = self.decay(x.mean(dim=1, keepdim=True))"
RETURNED = "return u * a.expand(-1, T, -1)"


@pytest.mark.parametrize(
    ("name", "shape", "made", "returned", "found"),
    [
        ("forward", SHAPE, MEAN, RETURNED, 1),
        (
            "forward",
            "bsz, seqlen, dim = x.size()",
            "a = self.norm(x).float().amax(1)",
            "return u + a[:, None], None",
            1,
        ),
        ("forward", SHAPE, "a = torch.mean(u, dim=-2, keepdim=True)", "y = u - a\n            return y", 1),
        # Along the channels, over batch and positions, up to each position.
        ("forward", SHAPE, "a = self.decay(x.mean(dim=-1, keepdim=True))", RETURNED, 0),
        ("forward", SHAPE, "a = x.mean(dim=(0, 1))", "return u * a", 0),
        ("forward", SHAPE, "a = x.cumsum(dim=1)", "return u * a", 0),
        # Of something else than the sequence, or of no sequence.
        ("forward", SHAPE, "h = u.reshape(B, T, 4, -1).transpose(1, 2); a = h.mean(dim=1)", "return u * a", 0),
        ("forward", SHAPE, "x = self.pick(x); a = x.mean(dim=1)", "return u * a", 0),
        ("forward", "B, K, C = x.shape", MEAN, RETURNED.replace("T", "K"), 0),
        ("forward", "B, H, T, C = x.shape", MEAN, RETURNED, 0),
        ("forward", "BT, n, C = x.shape", MEAN, RETURNED.replace("T", "n"), 0),
        ("forward", "B, n, C = x.shape", MEAN, RETURNED.replace("T", "n"), 0),
        ("forward", SHAPE, "a = x.norm(1)", "return u * a", 0),
        # In training alone, and into a number for the batch.
        ("forward", SHAPE, "if self.training: u = u + x.mean(dim=1)", "return u", 0),
        ("forward", SHAPE, "ce = F.cross_entropy(u, x) + x.mean(dim=1).square().sum()", "return ce", 0),
        # For a loss of its own, for a report, and where no layer is run.
        ("forward", SHAPE, "self.seen = x.mean(dim=1)", "return u", 0),
        ("forward", SHAPE, "a = x.mean(dim=1)", "return u, a.square().mean()", 0),
        ("summary", SHAPE, MEAN, RETURNED, 0),
    ],
)
def test_every_position_gets_what_all_of_them_give(name: str, shape: str, made: str, returned: str, found: int) -> None:
    source = LAYER.format(name=name, shape=shape, pooled=made, returned=returned)
    assert len(list(pooled(program(source)))) == found


def test_the_way_is_told() -> None:
    source = LAYER.format(name="forward", shape=SHAPE, pooled=MEAN, returned=RETURNED)
    [only] = pooled(program(source))
    assert [step.location.line for step in only.steps] == [7, 8]
    # Of a layer that nobody makes, no score comes.
    assert not list(pooled(program(source.replace("mixer = Mixer()", "pass"))))
