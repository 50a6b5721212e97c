"""Muon divided among processes: the bits of one process that has the same summed gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from reference_model.config import Config
from reference_model.exchange import Exchange
from reference_model.main import build_model
from reference_model.miniature import MINIATURE_LAYERS, MINIATURE_SETTINGS
from reference_model.muon import Muon
from reference_model.optim import build_optimizers
from reference_model.presets import PRESETS
from reference_model.worker import Worker
from tests.worlds import run_world

# Eight matrices of one shape, three in a bank; three of another; one alone: fewer than the processes.
SHAPES = ((6, 4), (3, 6, 4), (4, 16), (6, 4), (6, 4), (4, 16), (6, 4), (6, 4), (4, 16), (5, 5))
CLIPPED_ROUNDING = 1e-5


def give_gradients(parameters: list[nn.Parameter], worker: Worker, step: int) -> None:
    """Gradients of this process: their mean over 1, 2 and 4 is the same, and exact in every order of additions."""
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parts = torch.randint(-512, 512, (4, *parameter.shape), generator=generator) / 1024
        parameter.grad = parts.chunk(worker.world_size)[worker.rank].sum(0) * worker.world_size / 4


def muon_alone(worker: Worker, exchange: Exchange) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    muon = Muon(parameters, weight_decay=0.1, steps=5, dtype=torch.float32, exchange=exchange)
    for step in range(4):
        give_gradients(parameters, worker, step)
        muon.step(0.02, 0.85 + 0.02 * step)
    return {str(number): parameter.detach() for number, parameter in enumerate(parameters)}


def all_optimizers(worker: Worker, exchange: Exchange, preset: str, **changes: str) -> dict[str, Tensor]:
    settings = {**MINIATURE_SETTINGS, **MINIATURE_LAYERS.get(preset, {}), "MUON_SHARDED": "1", **changes}
    config = Config.from_environment(settings, PRESETS[preset])
    model = build_model(config, "cpu")
    optimizers = build_optimizers(model, config, exchange=exchange)
    for step in range(3):
        give_gradients(list(optimizers.parameters()), worker, step)
        optimizers.step(0.5, 0.9)
    return dict(model.state_dict())


def every_way(worker: Worker) -> dict[str, dict[str, Tensor]]:
    """Muon and whole optimizers, with and without banks; the first again without reduce_scatter, and in turns."""
    exchange = Exchange(worker)
    found = {
        "Muon": muon_alone(worker, exchange),
        "demo": all_optimizers(worker, exchange, "demo"),
        "pr852": all_optimizers(worker, exchange, "pr852"),
        "not divided": all_optimizers(worker, exchange, "pr852", MUON_SHARDED="0"),
        "clipped": all_optimizers(worker, exchange, "pr852", GRAD_CLIP_NORM="0.5"),
        "in turns": all_optimizers(worker, replace(exchange, overlapped=False), "pr852"),
    }
    dist.reduce_scatter = no_reduce_scatter
    return {**found, "without reduce_scatter": all_optimizers(worker, exchange, "pr852")}


def no_reduce_scatter(*_: object, **__: object) -> None:
    raise RuntimeError("ProcessGroupGloo does not support reduce_scatter")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_sharded_muon_has_the_bits_of_one_process(size: int, tmp_path: Path) -> None:
    (expected,) = run_world(1, tmp_path / "alone", every_way)
    for found in run_world(size, tmp_path / "world", every_way):
        clipped = found.pop("clipped")
        for name, weights in found.items():
            assert all(torch.equal(weights[key], value) for key, value in expected[name].items()), name
        # The norm of all gradients is added up in another order.
        for key, value in expected["clipped"].items():
            torch.testing.assert_close(clipped[key], value, atol=CLIPPED_ROUNDING, rtol=CLIPPED_ROUNDING)
    assert expected["pr852"].keys() == expected["in turns"].keys()
    assert all(torch.equal(expected["pr852"][key], value) for key, value in expected["in turns"].items())
    assert not torch.equal(expected["pr852"]["banks.qo"], expected["clipped"]["banks.qo"])


@pytest.mark.parametrize(("size", "shares"), [(1, [8, 3, 1]), (2, [4, 2, 1]), (3, [3, 1, 1]), (4, [2, 1, 1])])
def test_a_process_keeps_the_momentum_of_its_share_only(size: int, shares: list[int]) -> None:
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    exchange = Exchange(Worker(0, size))
    muon = Muon(parameters, weight_decay=0.1, steps=5, dtype=torch.float32, exchange=exchange)
    assert [len(buffer) for buffer in muon.momentum_buffers] == shares
