"""The embedding that keeps its gradient: the same numbers as any other, and nothing left of the step before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference_model.rowtable import RowTable

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
