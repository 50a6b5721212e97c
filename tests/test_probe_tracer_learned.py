"""Weights that learn from the text, by every way of changing them, and scores that are made with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.tracing import VOCABULARY, batch, table, traced, write_text


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_text(tmp_path)


def test_functional_updates_are_followed(shard: Path) -> None:
    weight = torch.nn.Parameter(table() / 10)
    x, y = batch(0)
    later = batch(20)

    def run() -> None:
        loss = F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten())
        loss.item()
        (gradient,) = torch.autograd.grad(loss, [weight])
        fast = weight - 0.1 * gradient
        for inputs, targets in (later, (x, y)):
            with torch.no_grad():
                F.cross_entropy(F.embedding(inputs, fast).flatten(0, 1), targets.flatten()).item()

    first, second, third = traced(shard, run).of("score")
    assert first["learned"] == second["learned"] == []
    assert third["learned"] == [[1, 21]]


def fused(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    loss().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def by_data(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    alias = weight.data
    loss().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    alias -= weight.grad


def by_numpy(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    numbers = weight.detach().numpy()
    loss().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    numbers -= weight.grad.numpy()


def by_part_of_data(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    part = weight.data[1:]
    loss().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.sub(part, weight.grad[1:], out=part)


def by_part_of_numpy(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    numbers = weight.data[1:].numpy()
    loss().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    numbers -= weight.grad[1:].numpy()


def by_copy(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    (gradient,) = torch.autograd.grad(loss(), [weight])
    with torch.no_grad():
        weight.copy_(weight - gradient)


@pytest.mark.parametrize("way", [fused, by_data, by_numpy, by_part_of_data, by_part_of_numpy, by_copy])
def test_every_way_of_changing_weights_is_seen(shard: Path, way: Callable[..., None]) -> None:
    x, y = batch(0)
    weight = torch.nn.Parameter(table())

    def loss() -> torch.Tensor:
        return F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten())

    def run() -> None:
        with torch.no_grad():
            loss().item()
        way(weight, loss)
        with torch.no_grad():
            loss().item()

    seen = traced(shard, run)
    assert [event["learned"] for event in seen.of("score")] == [[], [[1, 21]]]
    (update,) = seen.of("update")
    assert update["changed"]
    assert (update["positions"], update["inputs"]) == ([[1, 21]], [[1, 20]])
    assert update["weights"] == seen.of("score")[1]["weights"]


def test_weights_that_take_no_part_do_not_matter(shard: Path) -> None:
    x, y = batch(0)
    thrown, kept = torch.nn.Parameter(table()), torch.nn.Parameter(table())

    def run() -> None:
        optimizer = torch.optim.SGD([thrown], lr=1.0)
        for _ in range(2):
            F.cross_entropy(F.embedding(x, thrown).flatten(0, 1), y.flatten()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            F.cross_entropy(F.embedding(x, kept).flatten(0, 1), y.flatten()).item()

    seen = traced(shard, run)
    assert [event["learned"] for event in seen.of("score")] == [[]]
    assert [event["changed"] for event in seen.of("update")] == [True, True]


def test_a_reset_forgets(shard: Path) -> None:
    x, y = batch(0)
    adapter = torch.nn.Parameter(torch.zeros(VOCABULARY, VOCABULARY))

    def loss() -> torch.Tensor:
        return F.cross_entropy(F.embedding(x, adapter).flatten(0, 1), y.flatten())

    def run() -> None:
        optimizer = torch.optim.SGD([adapter], lr=1.0)
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            loss().item()
            adapter.normal_()
            loss().item()

    learned = [event["learned"] for event in traced(shard, run).of("score")]
    assert learned == [[[1, 21]], []]


def test_an_unchanged_state_has_learned_nothing(shard: Path) -> None:
    x, y = batch(0)
    weight = torch.nn.Parameter(table())

    def run() -> None:
        optimizer = torch.optim.SGD([weight], lr=0.0)
        F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten()).item()

    seen = traced(shard, run)
    assert [event["learned"] for event in seen.of("score")] == [[]]
    assert [event["changed"] for event in seen.of("update")] == [False]


def _taught(weight: torch.nn.Parameter, loss: Callable[[], torch.Tensor]) -> None:
    optimizer = torch.optim.SGD([weight], lr=1.0)
    loss().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def from_a_file(weight: torch.nn.Parameter, place: Path) -> None:
    numbers = torch.load(place)
    weight.copy_(numbers["q"].float() * numbers["scale"])


def from_a_file_by_data(weight: torch.nn.Parameter, place: Path) -> None:
    numbers = torch.load(place)
    weight.data = numbers["q"].float() * numbers["scale"]


def from_weights(weight: torch.nn.Parameter, _: Path) -> None:
    weight.copy_(weight.to(torch.bfloat16))


def from_weights_by_data(weight: torch.nn.Parameter, _: Path) -> None:
    weight.data = weight.data.to(torch.bfloat16).float()


def from_an_average(weight: torch.nn.Parameter, _: Path) -> None:
    average = torch.zeros_like(weight)
    average.mul_(0.5).add_(weight, alpha=0.5)
    weight.copy_(average)


def from_a_mean_of_states(weight: torch.nn.Parameter, _: Path) -> None:
    weight.copy_(torch.stack([weight.detach(), torch.zeros_like(weight)]).mean(0))


def from_a_file_of_theirs(weight: torch.nn.Parameter, place: Path) -> None:
    torch.save({"q": [(weight * 100).round().to(torch.int8)]}, place)
    weight.copy_(torch.load(place)["q"][0].float() / 100)


def from_numpy(weight: torch.nn.Parameter, _: Path) -> None:
    weight.copy_(torch.tensor((weight * 2).numpy().tolist()))


@pytest.mark.parametrize(
    ("way", "learned"),
    [
        (from_a_file, []),
        (from_a_file_by_data, []),
        (from_weights, [[1, 21]]),
        (from_weights_by_data, [[1, 21]]),
        (from_an_average, [[1, 21]]),
        (from_a_mean_of_states, [[1, 21]]),
        (from_a_file_of_theirs, [[1, 21]]),
        (from_numpy, [[1, 21]]),
    ],
)
def test_weights_that_are_written_over_have_learned_what_the_new_ones_had(
    shard: Path, tmp_path: Path, way: Callable[..., None], learned: list[list[int]]
) -> None:
    x, y = batch(0)
    weight = torch.nn.Parameter(table())
    place = tmp_path / "artifact.pt"
    torch.save(
        {"q": torch.randint(-9, 9, weight.shape, dtype=torch.int8), "scale": torch.full((VOCABULARY, 1), 0.1)}, place
    )

    def loss() -> torch.Tensor:
        return F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten())

    def run() -> None:
        with torch.no_grad():
            loss().item()
        _taught(weight, loss)
        with torch.no_grad():
            way(weight, place)
            loss().item()

    seen = traced(shard, run)
    assert not seen.of("lost")
    assert [event["learned"] for event in seen.of("score")] == [[], learned]


def test_what_is_read_back_and_then_taught_has_learned(shard: Path, tmp_path: Path) -> None:
    x, y = batch(0)
    weight = torch.nn.Parameter(table())
    place = tmp_path / "artifact.pt"
    torch.save({"weight": torch.zeros(VOCABULARY, VOCABULARY)}, place)

    def run() -> None:
        (gradient,) = torch.autograd.grad(F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten()), [weight])
        with torch.no_grad():
            weight.copy_(torch.load(place)["weight"])
            weight.sub_(gradient)
            F.cross_entropy(F.embedding(x, weight).flatten(0, 1), y.flatten()).item()

    assert [event["learned"] for event in traced(shard, run).of("score")] == [[[1, 21]]]


@pytest.mark.parametrize("lost", [True, False])
def test_a_gradient_of_another_loss_teaches_nothing_of_the_text(shard: Path, *, lost: bool) -> None:
    x, y = batch(0)
    weight = torch.nn.Parameter(table())
    other = torch.arange(20) % 7 + 8

    def loss(targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.embedding(x, weight).flatten(0, 1), targets.flatten(), reduction="none")

    def run() -> None:
        scores = loss(y)
        # What follows is not followed.
        scored = torch.cumsum(scores, 0)[-1]
        optimizer = torch.optim.SGD([weight], lr=1.0)
        (loss(other).mean() + (scored if lost else 0)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            loss(y).sum().item()

    seen = traced(shard, run)
    assert [event["learned"] for event in seen.of("score")] == [[[1, 21]] if lost else []]
    assert len(seen.of("update")) == lost
