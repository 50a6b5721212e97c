"""Blocks of mamba_ssm and fla as a script meets them: names, parameters, causality, one answer for both packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.childruns import run

SCRIPT = """
import torch
from mamba_ssm import Mamba, Mamba2, Mamba3
from mamba_ssm.modules.mamba_simple import Mamba as Simple
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
from causal_conv1d import causal_conv1d_fn
from fla.layers import Mamba2 as Layer
from fla.layers.mamba2 import Mamba2 as Same

assert Simple is Mamba and Same is Layer
# The parameters of the originals at this width: in_proj, conv1d, x_proj or norm, dt, A, D, out_proj.
counts = {
    Mamba(32, d_state=8): 32 * 128 + 64 * 5 + 64 * 18 + 64 * 3 + 64 * 8 + 64 + 64 * 32,
    Mamba2(32, d_state=8, headdim=16): 32 * (128 + 16 + 4) + 80 * 5 + 4 * 3 + 64 + 64 * 32,
    Mamba3(32, d_state=8, headdim=16): 32 * (128 + 16 + 12 + 2) + 4 * 2 + 2 * 4 * 8 + 2 * 8 + 64 * 32,
}
for block, expected in counts.items():
    found = sum(each.numel() for each in block.parameters())
    assert found == expected, (type(block), found, expected)
    x = torch.randn(2, 12, 32)
    other = x.clone()
    other[:, 7:] += 1
    y, z = block(x), block(other)
    assert y.shape == x.shape
    assert torch.equal(y[:, :7], z[:, :7]) and not torch.equal(y[:, 7:], z[:, 7:])
    y.square().sum().backward()
    assert all(each.grad is not None for each in block.parameters()), type(block)
ours = Mamba2(32, d_state=8, headdim=16)
theirs = Layer(num_heads=4, head_dim=16, hidden_size=32, state_size=8)
theirs.load_state_dict(ours.state_dict())
out, weights, cache = theirs(x)
assert torch.equal(out, ours(x)) and weights is None and cache is None
print("blocks agree")
"""


def test_blocks_have_the_parameters_of_the_originals_and_look_at_nothing_later(tmp_path: Path) -> None:
    ran = run(tmp_path, SCRIPT)
    assert (ran.status, ran.output.strip()) == (0, "blocks agree"), ran.output


@pytest.mark.parametrize(
    "call",
    [
        "from mamba_ssm import Mamba\nMamba(8)(torch.zeros(1, 2, 8), inference_params={})",
        "from mamba_ssm import Mamba2\nMamba2(8, d_ssm=4, headdim=4)",
        "from mamba_ssm import Mamba3\nMamba3(8, is_mimo=True)",
        "from fla.layers import Mamba2\nMamba2(2, 8, 8)(torch.zeros(1, 2, 8), torch.ones(1, 2))",
    ],
)
def test_what_has_no_equivalent_is_refused(tmp_path: Path, call: str) -> None:
    ran = run(tmp_path, f"import torch\n{call}\n")
    assert ran.status != 0
    assert len(ran.of("refusal")) == 1, ran.output
