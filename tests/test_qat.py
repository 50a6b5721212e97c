"""Quantization-aware training: the artifact's rounding, gradients straight through it, and a smaller gap at 4 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_model.config import Config, QuantConfig
from reference_model.main import build_model
from reference_model.miniature import miniature_environment, write_miniature_corpus
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.qat import rounded_weights
from reference_model.quantize import QuantizeError
from reference_model.runlog import RunLog
from reference_model.schedule import Schedule
from reference_model.storage import pack_model, unpack_model
from reference_model.train import Trainer, training_loader
from reference_model.worker import Worker

LENGTH = 32


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_corpus(tmp_path_factory.mktemp("corpus"))


def tiny_config(corpus: Path, preset: str = "demo", **changes: str) -> Config:
    return Config.from_environment({**miniature_environment(corpus, preset), **changes}, PRESETS[preset])


def trained(config: Config) -> tuple[HymbaLM, list[str]]:
    """A model with the averaged weights of a run, and what was logged."""
    lines, model = list[str](), build_model(config, "cpu")
    loader, log = training_loader(config, Worker()), RunLog(None, lines.append)
    model.load_state_dict(Trainer(model, config, loader, Worker(), log).run().average, strict=False)
    return model, lines


def state_of(model: HymbaLM) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


@pytest.mark.parametrize("bits", ["4", "6", "8"])
@pytest.mark.parametrize(("preset", "floor"), [("demo", "none"), ("pr852", "published")])
def test_rounded_weights_are_those_of_the_artifact(preset: str, floor: str, bits: str, corpus: Path) -> None:
    roles = {"QUANT_BITS_MLP": "8", "QUANT_BITS_EMBED": "6"} if bits == "4" else {"FP16_EMBED": "1"}
    config = tiny_config(corpus, preset, QUANT_BITS=bits, QUANT_SCALE_FLOOR=floor, **roles)
    model = build_model(config, "cpu")
    own, stored = state_of(model), unpack_model(pack_model(model.state_dict(), config), config.model)
    with rounded_weights(model, config.quant):
        lent = state_of(model)
    assert_same(state_of(model), own)
    in_integers = [name for name, value in lent.items() if not torch.equal(value, own[name])]
    assert {"demo": "blocks.0.mlp.fc.weight", "pr852": "banks.mlp_up"}[preset] in in_integers
    # Small tensors stand in float16 in the artifact; training does not round those.
    assert [name for name in in_integers if not torch.equal(lent[name], stored[name])] == []
    in_half = [name for name, value in stored.items() if not torch.equal(lent[name], value)]
    assert all(own[name].numel() <= config.quant.keep_float_max_numel or name == "tok_emb.weight" for name in in_half)
    assert ("tok_emb.weight" in in_half) == config.quant.fp16_embed


def gradients(model: HymbaLM, tokens: Tensor) -> dict[str, Tensor]:
    loss: Tensor = model.token_losses(tokens[:, :-1], tokens[:, 1:]).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradients_pass_straight_through(corpus: Path) -> None:
    config = tiny_config(corpus, QUANT_BITS="4")
    model, rounded = (build_model(config, "cpu") for _ in range(2))
    with rounded_weights(model, config.quant):
        rounded.load_state_dict(model.state_dict())
    own = state_of(model)
    tokens = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))
    with rounded_weights(model, config.quant):
        through = gradients(model, tokens)
    assert_same(state_of(model), own)
    assert_same(through, gradients(rounded, tokens))
    assert not torch.equal(own["blocks.0.mlp.fc.weight"], rounded.state_dict()["blocks.0.mlp.fc.weight"])


def test_weights_are_given_back_after_an_error(corpus: Path) -> None:
    config = tiny_config(corpus)
    model = build_model(config, "cpu")
    own = state_of(model)
    with pytest.raises(ZeroDivisionError), rounded_weights(model, config.quant):
        raise ZeroDivisionError
    assert_same(state_of(model), own)
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.proj.weight")[0, 0] = float("inf")
    place = r"^blocks\.1\.mlp\.proj\.weight: 1 of 3072 weights are not finite"
    with pytest.raises(QuantizeError, match=place), rounded_weights(model, config.quant):
        pass
    assert torch.equal(model.tok_emb.weight, own["tok_emb.weight"])


def test_it_begins_at_its_share_of_the_steps_or_of_the_time() -> None:
    fixed = Schedule(100, 0.0, 10, "linear", qat_start=0.75)
    assert [fixed.rounds_weights(step, 1e9) for step in (0, 74, 75, 99)] == [False, False, True, True]
    timed = replace(fixed, max_wallclock_seconds=60.0)
    assert [timed.rounds_weights(5, seconds) for seconds in (44.9, 45.0)] == [False, True]
    assert timed.rounds_weights(80, 1.0)
    never = replace(timed, qat_start=1.0)
    assert not never.rounds_weights(100, 60.0)
    assert replace(fixed, qat_start=0.0).rounds_weights(0, 0.0)


def test_nothing_changes_before_it_begins(corpus: Path) -> None:
    # Steps are whole: 0.999 of six begins after the last.
    off, lines = trained(tiny_config(corpus))
    late, _ = trained(tiny_config(corpus, QAT_START="0.999"))
    begun, told = trained(tiny_config(corpus, QAT_START="0.5", QUANT_BITS="4"))
    assert_same(state_of(late), state_of(off))
    assert not torch.equal(begun.tok_emb.weight, off.tok_emb.weight)
    assert [line for line in told if line.startswith("qat:")] == ["qat:on after_step:3/6"]
    assert not any(line.startswith("qat:") for line in lines)


def losses(model: HymbaLM, quant: QuantConfig, tokens: Tensor) -> tuple[float, float]:
    """Nats per token with the weights in float, and as they are stored."""
    rows = tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    with torch.no_grad():
        floating = model.token_losses(rows[:, :-1], rows[:, 1:]).mean().item()
        with rounded_weights(model, quant):
            return floating, model.token_losses(rows[:, :-1], rows[:, 1:]).mean().item()


@pytest.mark.parametrize("seed", ["1", *(pytest.param(seed, marks=pytest.mark.slow) for seed in ("2", "3"))])
def test_the_gap_at_four_bits_is_smaller_with_it(seed: str, corpus: Path) -> None:
    shard = next((corpus / "datasets" / "demo_sp300_fullval").glob("fineweb_val_*.bin"))
    tokens = torch.from_numpy(np.fromfile(shard, "<u2", offset=1024).astype(np.int64))
    changes = {"SEED": seed, "ITERATIONS": "60", "QUANT_BITS": "4", "GRAD_ACCUM_STEPS": "1"}
    found = []
    for start in ("1", "0.5"):
        config = tiny_config(corpus, QAT_START=start, **changes)
        found.append(losses(trained(config)[0], config.quant, tokens))
    (plain, plain_stored), (aware, aware_stored) = found
    assert aware_stored - aware < 0.5 * (plain_stored - plain)
    assert aware_stored < plain_stored
