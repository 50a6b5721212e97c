"""Parameters that no optimizer group takes."""

from __future__ import annotations

import ast

from harness.analysis.index import Index
from harness.analysis.parameters import dead_parameters, swapped_parameters

SCRIPT = """
class Model(nn.Module):
    def __init__(self):
        self.blocks = nn.ModuleList([Block() for _ in range(2)])

class Block(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter(torch.zeros(4, 4))

def main():
    model = Model()
    swap(model)
    named = list(model.blocks.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2]
    vectors = [p for n, p in named if p.ndim < 2]
    opt = torch.optim.Adam(matrices + vectors)
"""
HELPER = """
class Layer(nn.Module):
    def __init__(self):
        self.meta = Meta()

class Meta(nn.Module):
    def __init__(self):
        self.tokens = nn.Parameter(torch.randn(1, 4, 8) * 0.02)
        self.scale = nn.Parameter(torch.ones(1))

def swap(model):
    layer = Layer()
    model.blocks[0].attn = layer.to("cpu")
"""


def index(text: str) -> Index:
    return Index(ast.parse(text))


def swapped(script: str = SCRIPT, helper: str = HELPER) -> list[tuple[str, str]]:
    return [(dead.name, dead.reason) for dead in swapped_parameters(index(script), script, index(helper))]


def test_a_layer_that_a_helper_puts_into_the_blocks_is_looked_at() -> None:
    assert dead_parameters(index(SCRIPT), SCRIPT) == []
    assert swapped() == [("Meta.tokens", "has 3 dimensions, and the groups take those of two and of fewer")]


def test_a_layer_put_in_after_the_groups_or_never_is_not() -> None:
    late = SCRIPT.replace("    swap(model)\n", "") + "    swap(model)\n"
    assert swapped(late) == []
    assert swapped(SCRIPT.replace("    swap(model)\n", "")) == []


def test_groups_that_take_every_dimension_leave_nothing_out() -> None:
    assert swapped(SCRIPT.replace("p.ndim == 2", "p.ndim >= 2")) == []
    assert (
        swapped(SCRIPT.replace("torch.optim.Adam(matrices", "torch.optim.Adam(list(model.parameters()) + matrices"))
        == []
    )
    assert swapped(SCRIPT.replace("p.ndim < 2", 'p.ndim < 2 or "tokens" in n')) == []


def test_a_helper_that_puts_nothing_into_blocks_is_left_alone() -> None:
    assert swapped(helper=HELPER.replace("model.blocks[0].attn", "model.attn")) == []
