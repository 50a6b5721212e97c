"""Noise in what was trained: found by its memory, under whatever name, and nowhere else."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

weights = importlib.import_module("harness.probe.child.flips.weights")


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, torch.nn.Module, torch.Tensor]:
    """What remembers, a model of which an optimizer has stepped the weight alone, and a tensor that none has."""
    hooks: list[Any] = []
    monkeypatch.setattr(weights, "register_optimizer_step_post_hook", hooks.append)
    trained, model = weights.Trained(), torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    for _ in range(3):
        model(torch.ones(4)).sum().backward()
        optimizer.step()
        hooks[0](optimizer, (), {})
    return trained, model, model.bias.detach()


def test_a_parameter_is_filled_and_its_neighbours_are_not(stepped: Any) -> None:
    trained, model, other = stepped
    before = model.weight.detach().clone(), other.clone()
    assert trained.noise() == (1, 1)
    assert (model.weight != before[0]).all()
    assert torch.equal(other, before[1])


def test_what_a_state_dictionary_holds_is_filled_when_the_parameter_is_gone() -> None:
    trained, state = weights.Trained(), {}
    flat = torch.zeros(40)
    model = torch.nn.Linear(4, 4, bias=False)
    model.weight = torch.nn.Parameter(flat[8:24].view(4, 4).t())
    trained._stepped(torch.optim.SGD(model.parameters(), lr=0.1))
    state = model.state_dict()
    del model
    assert trained.noise() == (1, 1)
    assert (state["weight"] != 0).all()
    assert (flat[:8] == 0).all()
    assert (flat[24:] == 0).all()


def test_nothing_is_kept_alive_and_nothing_else_is_filled() -> None:
    trained = weights.Trained()
    model = torch.nn.Linear(64, 64, bias=False)
    trained._stepped(torch.optim.SGD(model.parameters(), lr=0.1))
    del model
    # It may be given the same memory.
    others = [torch.zeros(64, 64) for _ in range(8)]
    assert trained.noise() == (0, 1)
    assert not any(other.any() for other in others)


def test_new_numbers_at_the_place_of_old_ones_are_met_again() -> None:
    trained = weights.Trained()
    model = torch.nn.Linear(64, 64, bias=False)
    for _ in range(3):
        model.weight.data = torch.zeros(64, 64)
        trained._stepped(torch.optim.SGD(model.parameters(), lr=0.1))
    assert trained.noise()[0] == 1
    assert (model.weight != 0).all()
