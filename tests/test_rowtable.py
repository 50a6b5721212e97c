"""The embedding that keeps its gradient: the same numbers as any other, and nothing left of the step before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from reference_model.evaluate import evaluate
from reference_model.optim import build_optimizers
from reference_model.presets import PRESETS
from reference_model.rowtable import RowTable
from tests.test_lora import CONFIG, task_of, text, tiny

ROWS, WIDTH = 50, 8


def trained(table: nn.Embedding, steps: int, parts: int) -> Tensor:
    """Weights after steps of Adam, each on the gradients of several passes."""
    adam = torch.optim.Adam(table.parameters(), lr=0.1, fused=True)
    if isinstance(table, RowTable):
        table.clear(keep=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for _ in range(parts):
            # Some rows come several times.
            ids = torch.randint(ROWS // 3, (3, 9), generator=generator)
            wanted = torch.randn(3, 9, WIDTH, generator=generator)
            (table(ids) - wanted).square().mean().backward()
        adam.step()
        if isinstance(table, RowTable):
            table.clear(keep=True)
        else:
            table.weight.grad = None
    return table.weight.detach().clone()


def test_training_gives_the_bits_of_any_other_embedding() -> None:
    kept, plain = RowTable(ROWS, WIDTH), nn.Embedding(ROWS, WIDTH)
    plain.load_state_dict(kept.state_dict())
    assert torch.equal(trained(kept, 6, 1), trained(plain, 6, 1))
    # Of several passes the sums are taken in another order.
    torch.testing.assert_close(trained(kept, 3, 4), trained(plain, 3, 4))


def test_the_kept_gradient_is_zero_again_and_keeps_its_memory() -> None:
    table = RowTable(ROWS, WIDTH)
    table.clear(keep=True)
    first = table.weight.grad
    assert first is not None
    table(torch.tensor([[3, 3], [7, 49]])).sum().backward()
    assert first[3].tolist() == [2.0] * WIDTH
    table.clear(keep=True)
    assert not first.any()
    table(torch.tensor([2, 48])).sum().backward()
    assert table.weight.grad is first
    assert first.is_sparse is False
    assert first.any(1).nonzero().flatten().tolist() == [2, 48]
    table.clear(keep=True)
    assert not first.any()
    assert not table.looked_up


def test_a_gradient_of_others_is_neither_noted_nor_cleared_by_halves() -> None:
    table = RowTable(ROWS, WIDTH)
    table.clear(keep=True)
    table(torch.tensor([4])).sum().backward()
    others = torch.ones_like(table.weight)
    table.weight.grad = others
    table(torch.tensor([1, 2])).sum().backward()
    assert others.sum(1).tolist() == [WIDTH * (2 if row in {1, 2} else 1) for row in range(ROWS)]
    assert len(table.looked_up) == 1, "the one lookup before"
    table.clear(keep=True)
    assert not others.any()
    assert not table.looked_up
    # It is the kept one from here on.
    table(torch.tensor([3])).sum().backward()
    table.clear(keep=True)
    assert table.weight.grad is others
    assert not others.any()


@pytest.mark.parametrize("kind", ["sgd", "lora", "phased", "phased_lora"])
@pytest.mark.parametrize("trained", [False, True])
def test_evaluations_leave_no_note_of_what_they_looked_up(kind: str, *, trained: bool) -> None:
    model, tokens = tiny("pr599"), text()
    if trained:
        build_optimizers(model, PRESETS["pr599"])
    config = replace(CONFIG, ttt_kind=kind, ttt_chunk_tokens=16, phased_prefix_docs=3)
    result = evaluate(task_of(model, tokens, config))
    assert result.tokens == tokens.numel() - 1
    assert model.bigram_hash is not None
    assert not model.bigram_hash.table.looked_up


def test_a_mean_over_processes_is_dropped() -> None:
    table = RowTable(ROWS, WIDTH)
    table(torch.tensor([1])).sum().backward()
    table.clear(keep=False)
    assert table.weight.grad is None
    table(torch.tensor([1])).sum().backward()
    assert not table.looked_up


def test_scoring_remembers_nothing() -> None:
    table = RowTable(ROWS, WIDTH)
    table.clear(keep=True)
    with torch.no_grad():
        table(torch.tensor([1, 2]))
    assert not table.looked_up
