"""Losses on their way from where they are computed to where they count, one way of each kind."""

from __future__ import annotations

import functools
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tracing import VOCABULARY, Seen, batch, table, traced, write_text


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_text(tmp_path)


def scores(seen: Seen) -> list[int]:
    assert not seen.of("lost"), seen.of("lost")
    return sorted(place for event in seen.of("score") for a, b in event["positions"] for place in range(a, b))


def losses(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.embedding(x, table()).flatten(0, 1), y.flatten(), reduction="none").view_as(y)


def logits(x: torch.Tensor) -> torch.Tensor:
    return F.embedding(x, table())


def account(x: torch.Tensor, y: torch.Tensor) -> None:
    total = torch.zeros((), dtype=torch.float64)
    total += losses(x, y).double().sum()
    total.item()


def grown(x: torch.Tensor, y: torch.Tensor) -> None:
    total = torch.zeros(())
    for row in losses(x, y):
        total = total + row.sum()
    float(total)


def buffered(x: torch.Tensor, y: torch.Tensor) -> None:
    buffer = torch.zeros(y.numel() + 5)
    buffer[2 : 2 + y.numel()] = losses(x, y).reshape(-1)
    buffer.sum().item()


def copied(x: torch.Tensor, y: torch.Tensor) -> None:
    buffer = torch.zeros(y.shape)
    buffer.copy_(losses(x, y))
    buffer.mean(dim=1).sum().item()


def rows(x: torch.Tensor, y: torch.Tensor) -> None:
    sums = torch.zeros(len(y) + 1, 3, dtype=torch.float64)
    for row, nats in enumerate(losses(x, y)):
        sums[row] = torch.stack([nats.double(), torch.ones(len(nats)), torch.ones(len(nats))]).sum(1)
    total = torch.zeros(3, dtype=torch.float64)
    for each in sums.unbind():
        total += each
    total.tolist()


def documents(x: torch.Tensor, y: torch.Tensor) -> None:
    torch.zeros(2).index_add_(0, torch.arange(y.numel()) % 2, losses(x, y).reshape(-1))


def apart(x: torch.Tensor, y: torch.Tensor) -> None:
    scores = logits(x)
    (scores.logsumexp(-1) - scores.gather(-1, y.unsqueeze(-1)).squeeze(-1)).sum().item()


def indexed(x: torch.Tensor, y: torch.Tensor) -> None:
    logits(x).flatten(0, 1).log_softmax(-1)[torch.arange(y.numel()), y.flatten()].sum().item()


class Own(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return scores.logsumexp(-1) - scores.gather(-1, targets[:, None])[:, 0]


def functions(x: torch.Tensor, y: torch.Tensor) -> None:
    Own.apply(logits(x).flatten(0, 1), y.reshape(-1)).sum().item()  # type: ignore[no-untyped-call]


# Each counts the losses of all targets, once.
WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "none, sum, item": lambda x, y: losses(x, y).sum().item(),
    "mean": lambda x, y: F.cross_entropy(logits(x).transpose(1, 2), y).item(),
    "mean times count": lambda x, y: float(F.cross_entropy(logits(x).flatten(0, 1), y.flatten()) * y.numel()),
    "sum": lambda x, y: F.cross_entropy(logits(x).flatten(0, 1), y.flatten(), reduction="sum").item(),
    "negative": lambda x, y: (-losses(x, y)).sum().item(),
    "nll_loss": lambda x, y: F.nll_loss(logits(x).log_softmax(-1).flatten(0, 1), y.flatten()).item(),
    "module": lambda x, y: torch.nn.CrossEntropyLoss()(logits(x).flatten(0, 1), y.flatten()).item(),
    "gather": lambda x, y: logits(x).log_softmax(-1).gather(-1, y[..., None]).squeeze(-1).neg().sum().item(),
    "logsumexp": apart,
    "indexed": indexed,
    "probabilities": lambda x, y: logits(x).softmax(-1).gather(-1, y[..., None]).log().sum().item(),
    "mixture": lambda x, y: (0.9 * (-losses(x, y)).exp() + 0.1 / VOCABULARY).log().sum().item(),
    "numpy": lambda x, y: losses(x, y).double().numpy().sum(),
    "tolist": lambda x, y: sum(losses(x, y).flatten().tolist()),
    "parts": lambda x, y: [part.sum().item() for part in torch.cat([losses(x, y), losses(x, y)[:0]]).chunk(60)],
    "stacked": lambda x, y: torch.stack([row.sum() for row in losses(x, y).unbind(0)]).sum().item(),
    "padded": lambda x, y: F.pad(losses(x, y), (0, 3)).to(torch.bfloat16).float().sum().item(),
    "formatted": lambda x, y: f"{losses(x, y).mean():.4f}",
    "account": account,
    "grown": grown,
    "buffered": buffered,
    "copied": copied,
    "rows": rows,
    "documents": documents,
    "own function": functions,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_target_is_counted_once(shard: Path, way: str) -> None:
    x, y = batch(0, 20, 100)

    def run() -> None:
        with torch.no_grad():
            WAYS[way](x, y)

    seen = traced(shard, run)
    assert scores(seen) == [*range(1, 41), *range(101, 121)]
    assert len(seen.of("pass")) == 1


def test_values_are_those_that_were_added(shard: Path) -> None:
    x, y = batch(0)
    fixed = table()
    right = F.cross_entropy(fixed[x].flatten(0, 1), y.flatten(), reduction="none").double()

    def run(reduction: str) -> None:
        F.cross_entropy(F.embedding(x, fixed).flatten(0, 1), y.flatten(), reduction=reduction).sum().item()

    for reduction in ("none", "mean"):
        seen = traced(shard, functools.partial(run, reduction))
        (event,) = seen.of("score")
        assert np.allclose(event["nll"], right.numpy(), atol=1e-8)
        assert math.isclose(event["sum"], float(right.sum()), rel_tol=1e-9)
        assert seen.of("pass")[0]["mean"] == pytest.approx(float(right.mean()))


def test_masks_and_slices_count_what_they_keep(shard: Path) -> None:
    x, y = batch(0, 10)

    def run() -> None:
        mask = torch.zeros(y.shape)
        mask[0, :] = mask[1, 10:] = 1
        (losses(x, y) * mask).sum().item()

    assert scores(traced(shard, run)) == list(range(1, 31))
    kept = torch.arange(20) < 5
    assert scores(traced(shard, lambda: torch.where(kept, losses(x, y)[0], 0.0).sum().item())) == [1, 2, 3, 4, 5]
    assert scores(traced(shard, lambda: losses(x, y)[0].where(kept, 0.0).sum().item())) == [1, 2, 3, 4, 5]
    assert scores(traced(shard, lambda: losses(x, y)[1, 10:].sum().item())) == list(range(21, 31))
    assert scores(traced(shard, lambda: losses(x, y)[losses(x, y) < 0].sum().item())) == []
    target = torch.where(torch.arange(20) < 5, y[:1], -100)
    seen = traced(shard, lambda: F.cross_entropy(F.embedding(x[:1], table()).mT, target, reduction="sum").item())
    assert scores(seen) == [1, 2, 3, 4, 5]


def test_what_is_counted_twice_is_seen(shard: Path) -> None:
    x, y = batch(0, 10)
    seen = traced(shard, lambda: losses(x, y).sum().item())
    assert seen.of("pass")[0]["doubled"] == [[11, 21]]
    # Reading one sum twice is not counting it twice.
    seen = traced(shard, lambda: [losses_.item() for losses_ in [losses(x[:1], y[:1]).sum()] * 2])
    assert seen.of("pass")[0]["doubled"] == []


def test_other_texts_leave_no_score(shard: Path) -> None:
    other = torch.from_numpy(np.random.default_rng(3).integers(8, VOCABULARY, (2, 21)))
    assert not traced(shard, lambda: losses(other[:, :-1], other[:, 1:]).sum().item()).of("score")


def test_events_are_bounded(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = importlib.import_module("harness.probe.child.tracer.ledger")
    monkeypatch.setattr(ledger, "BYTES", 2_000)
    monkeypatch.setattr(ledger, "EVENTS", 20)
    x, y = batch(0)
    seen = traced(shard, lambda: [losses(x, y).sum().item() for _ in range(30)])
    assert len(seen.of("score")) == 20
    assert seen.of("score")[-1]["nll"] is None
    assert seen.of("thinned")[0]["left_out"] == 10
    assert len(seen.of("pass")) == 30
    json.dumps(seen.events)


def test_tensors_are_saved_as_they_would_be(shard: Path, tmp_path: Path) -> None:
    x, y = batch(0)

    def run() -> None:
        torch.save(losses(x, y), tmp_path / "a")

    traced(shard, run)
    assert torch.load(tmp_path / "a", weights_only=True).__dict__ == {}


@pytest.mark.parametrize(("autocast", "told"), [(True, [16]), (False, [])])
def test_losses_made_in_16_bits_are_told_once(shard: Path, *, autocast: bool, told: list[int]) -> None:
    x, y = batch(0)
    weight = torch.nn.Parameter(table())

    def run() -> None:
        for _ in range(2):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                made = F.embedding(x, weight) @ weight
            F.cross_entropy(made.float().flatten(0, 1), y.flatten()).item()

    assert [event["bits"] for event in traced(shard, run).of("precision")] == told
