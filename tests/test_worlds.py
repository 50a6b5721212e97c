"""Training in worlds of one, two and four processes: the same tokens, the same weights, the same end."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reference_model.config import Config
from reference_model.main import build_model
from reference_model.miniature import miniature_environment, write_miniature_corpus
from reference_model.presets import PRESETS
from reference_model.runlog import RunLog
from reference_model.train import Trainer, TrainingError, accumulation_steps, training_loader
from reference_model.worker import Worker
from tests.worlds import run_world

pytestmark = pytest.mark.slow
# Of a tensor's norm, after six steps: gradients are added up in another order, and Newton-Schulz multiplies that.
ROUNDING = 3e-5
BATCHES = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


def settings(corpus: Path, worker: Worker, preset: str, **changes: str) -> Config:
    """The same micro-batches, whoever computes them."""
    shared = {"GRAD_ACCUM_STEPS": str(BATCHES // worker.world_size), "TRAIN_LOG_EVERY": "1"}
    return Config.from_environment({**miniature_environment(corpus, preset), **shared, **changes}, PRESETS[preset])


def trained(worker: Worker, corpus: Path, preset: str, changes: dict[str, str]) -> dict[str, Tensor]:
    """The last and the averaged weights, the losses that were logged, and how many steps there were."""
    config, lines = settings(corpus, worker, preset, **changes), list[str]()
    model = build_model(config, "cpu")
    # Each process has a clock of its own, that of the last one runs fastest.
    clock = itertools.count(0.0, 1.0 + worker.rank).__next__
    log = RunLog(None, lines.append)
    result = Trainer(model, config, training_loader(config, worker), worker, log, clock).run()
    losses = [float(line.split("train_loss:")[1].split()[0]) for line in lines if "train_loss:" in line]
    averages = {f"average.{name}": value for name, value in result.average.items()}
    counts = {"losses": torch.tensor(losses), "steps": torch.tensor(result.steps)}
    return {**dict(model.state_dict()), **averages, **counts}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], rounding: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name].double() - value.double()).norm()
        assert difference <= rounding * value.double().norm(), f"{name}: off by {difference / value.norm():.2g}"


@pytest.mark.parametrize(("preset", "size", "sharded"), [("demo", 2, "0"), ("demo", 4, "1"), ("pr852", 2, "1")])
def test_every_number_of_processes_gives_the_same_weights(
    preset: str, size: int, sharded: str, corpus: Path, tmp_path: Path
) -> None:
    expected = trained(Worker(), corpus, preset, {})
    found = run_world(size, tmp_path / "world", trained, corpus, preset, {"MUON_SHARDED": sharded})
    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items())
    # Rounded to four digits in the log.
    torch.testing.assert_close(found[0].pop("losses"), expected.pop("losses"), atol=2e-4, rtol=0)
    assert_close(found[0], expected, ROUNDING)


def tokens_seen(worker: Worker, corpus: Path) -> Tensor:
    """Every sequence that this process trains on in three steps, with the target of its last token."""
    config = settings(corpus, worker, "demo")
    loader = training_loader(config, worker)
    places = itertools.product(range(3), range(accumulation_steps(config, worker.world_size)))
    batches = itertools.starmap(loader.batch, places)
    return torch.cat([torch.cat([inputs, targets[:, -1:]], dim=1) for inputs, targets in batches])


@pytest.mark.parametrize("size", [2, 4])
def test_every_token_is_dealt_to_one_process(size: int, corpus: Path, tmp_path: Path) -> None:
    alone = tokens_seen(Worker(), corpus).view(3, BATCHES, -1)
    shares = run_world(size, tmp_path / "world", tokens_seen, corpus)
    assert torch.equal(torch.cat([share.view(3, BATCHES // size, -1) for share in shares], dim=1), alone)


@pytest.mark.parametrize("size", [2, 4])
def test_all_processes_stop_after_the_same_step(size: int, corpus: Path, tmp_path: Path) -> None:
    limit = {"MAX_WALLCLOCK_SECONDS": "20", "ITERATIONS": "100000"}
    found = run_world(size, tmp_path / "world", trained, corpus, "demo", limit)
    steps = {int(one["steps"]) for one in found}
    assert len(steps) == 1
    # The fastest clock decides: a part of the steps that the slowest alone would allow.
    assert 0 < steps.pop() < int(trained(Worker(), corpus, "demo", limit)["steps"])
    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items())


def failing(worker: Worker, corpus: Path) -> str:
    """What a process says when the loss of the last one alone is not finite."""
    config = settings(corpus, worker, "demo", TRAIN_LOG_EVERY="0")
    model = build_model(config, "cpu")
    if worker.rank == worker.world_size - 1:
        torch.nn.init.constant_(model.tok_emb.weight, float("nan"))
    try:
        Trainer(model, config, training_loader(config, worker), worker, RunLog(None, lambda _: None)).run()
    except TrainingError as error:
        return str(error)
    return "no error"


def test_a_loss_that_is_not_finite_stops_every_process(corpus: Path, tmp_path: Path) -> None:
    found = run_world(2, tmp_path / "world", failing, corpus)
    assert found == ["training loss that is not finite at step 1"] * 2
