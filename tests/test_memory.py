"""The step mode: a memory and a few tokens at a time give what the whole text gives at once, in every preset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.attention import causal_attention, continued_attention
from reference_model.config import Config, ModelConfig
from reference_model.memory import KeyValues, Tail, previous
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.settings import ConfigError
from tests.test_hybrids import BY_PRESET, SMALL

TOKENS = 40
WINDOW = 7
RUNS = {"token by token": [1] * TOKENS, "runs": [1, 3, 16, 1, 2, 17], "at once": [TOKENS]}


def small(preset: str, **changes: Any) -> ModelConfig:
    """Return a preset with all its features and little width; a window binds within TOKENS."""
    config = Config.from_environment(SMALL | BY_PRESET.get(preset, {}), PRESETS[preset]).model
    window = WINDOW if config.sliding_window else 0
    return replace(config, num_layers=5, sliding_window=window, scan_chunk=16, **changes)


def random_model(config: ModelConfig, dtype: torch.dtype) -> HymbaLM:
    """Build a model without its zeros and ones, so that everything influences everything it can."""
    generator = torch.Generator().manual_seed(0)
    model = HymbaLM(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.to(dtype).eval()


def random_tokens(config: ModelConfig, batch: int = 3, length: int = TOKENS) -> Tensor:
    return torch.randint(0, config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


def streams(model: HymbaLM, tokens: Tensor, lengths: list[int]) -> Tensor:
    """The last stream, run by run, before the logits are cut to float32."""
    memory = model.new_memory()
    with torch.no_grad():
        parts = [model.run_blocks(model.embed(part, memory), memory) for part in torch.split(tokens, lengths, 1)]
    assert memory.position == tokens.shape[1]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("lengths", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("preset", PRESETS)
def test_step_mode_is_the_parallel_forward_in_float64(preset: str, lengths: list[int]) -> None:
    config = small(preset)
    model, tokens = random_model(config, torch.float64), random_tokens(config)
    with torch.no_grad():
        whole = model.run_blocks(model.embed(tokens))
    torch.testing.assert_close(streams(model, tokens, lengths), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
@pytest.mark.parametrize("preset", PRESETS)
def test_step_mode_is_the_parallel_forward_in_float32(preset: str, backend: str) -> None:
    config = small(preset, scan_backend=backend)
    model, tokens = random_model(config, torch.float32), random_tokens(config)
    memory = model.new_memory()
    with torch.no_grad():
        stepped = torch.cat([model(token, memory) for token in torch.split(tokens, 1, 1)], 1)
        torch.testing.assert_close(stepped, model(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [(), (1,), None])
def test_some_layers_see_everything(layers: tuple[int, ...] | None) -> None:
    config = small("pr914", global_layers=layers)
    model, tokens = random_model(config, torch.float64), random_tokens(config)
    with torch.no_grad():
        whole = model.run_blocks(model.embed(tokens))
    torch.testing.assert_close(streams(model, tokens, RUNS["runs"]), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("preset", ["pr914", "mini1961_3"])
def test_the_chosen_backend_computes_the_window_behind_a_memory(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        calls.append(window)
        return causal_attention(q, k, v, window)

    monkeypatch.setattr("reference_model.attention.flex_window_attention", counted)
    config = small(preset, window_backend="flex")
    config = replace(config, sliding_window=WINDOW, hybrid_layers=None)
    model, tokens = random_model(config, torch.float32), random_tokens(config)
    streams(model, tokens, [16, 16, 4, 4])
    assert len(calls) == 2 * config.num_layers
    with pytest.raises(ConfigError, match="flex cannot compute this attention"):
        model.run_blocks(model.embed(tokens[:, :4], memory := model.new_memory()), memory)


@pytest.mark.parametrize("window", [0, 1, 2, 7])
def test_the_memory_is_bounded_by_the_window(window: int) -> None:
    kept, heads = KeyValues(window), torch.randn(2, 2, 300, 4, dtype=torch.float64)
    mixed = [continued_attention(x, x, x, kept) for x in torch.split(heads, 1, 2)]
    torch.testing.assert_close(torch.cat(mixed, 2), causal_attention(heads, heads, heads, window), rtol=0, atol=1e-12)
    assert kept.keys is not None
    assert kept.keys.shape[2] <= (64 if window else 600)


def test_previous_items() -> None:
    tail, x = Tail(), torch.arange(1, 7).view(1, 6)
    assert previous(x).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert [previous(part, tail).tolist() for part in torch.split(x, [1, 3, 2], 1)] == [[[0]], [[1, 2, 3]], [[4, 5]]]
    assert Tail().join(x, 0).tolist() == x.tolist()
