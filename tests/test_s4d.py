"""The mixers for comparisons: a long filter where the scan stands, a scan alone, and MLPs of any width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.config import ModelConfig
from reference_model.memory import KeyValues, LayerMemory
from reference_model.mixer import ScanMixer
from reference_model.model import HymbaLM
from reference_model.optim import build_groups
from reference_model.presets import PRESETS
from reference_model.s4d import FilterMixer, LongFilter
from reference_model.settings import ConfigError
from reference_model.storage import pack_model, unpack_model
from tests.test_memory import RUNS, random_model, random_tokens, small, streams

VARIANTS: dict[str, dict[str, Any]] = {"filter": {"ssm_kind": "s4d_lin"}, "scan alone": {"use_attention": False}}


def random_filter(channels: int = 3, pairs: int = 2) -> LongFilter:
    filters = LongFilter(channels, pairs)
    filters.init_weights(torch.Generator().manual_seed(5))
    # Steps of about one: the memory of a few tokens, which every term of the sum shows in.
    with torch.no_grad():
        filters.log_dt.add_(3.0)
    return filters.double()


def by_steps(filters: LongFilter, x: Tensor) -> Tensor:
    """The recurrence, channel by channel, with Python's complex numbers."""
    out = torch.zeros_like(x)
    for channel in range(x.shape[2]):
        step = filters.log_dt[channel].exp().item()
        for pair in range(filters.A_log.shape[1]):
            rate = complex(-filters.A_log[channel, pair].exp().item(), filters.A_imag[channel, pair].item())
            decay = complex(torch.exp(torch.tensor(step * rate, dtype=torch.complex128)).item())
            weight = complex(*filters.C[channel, pair].tolist())
            for row in range(len(x)):
                state = 0j
                for time in range(x.shape[1]):
                    state = decay * state + (decay - 1) / rate * x[row, time, channel].item()
                    out[row, time, channel] += 2 * (weight * state).real
    return out


def test_the_filter_is_the_recurrence() -> None:
    filters, x = random_filter(), torch.randn(2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(filters(x), by_steps(filters, x), rtol=0, atol=1e-12)


def test_the_filter_learns() -> None:
    filters = random_filter(2, 1)
    x = torch.randn(1, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(filters, (x,))
    filters(x).square().sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in filters.parameters())


def test_the_filter_begins_as_published() -> None:
    filters = LongFilter(64, 4)
    filters.init_weights(None)
    assert filters.A_imag[0].tolist() == pytest.approx([0, 3.14159, 6.28319, 9.42478], abs=1e-4)
    assert filters.A_log.exp().flatten().tolist() == [0.5] * 256
    assert 0.001 <= filters.log_dt.exp().min() < filters.log_dt.exp().max() <= 0.1001


def test_nothing_later_reaches_an_output() -> None:
    filters, x = random_filter(), torch.randn(1, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    changed = x.clone()
    changed[:, 5:] = 7.0
    with torch.no_grad():
        torch.testing.assert_close(filters(changed)[:, :5], filters(x)[:, :5], rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_step_mode_is_the_parallel_forward(variant: dict[str, Any], lengths: list[int]) -> None:
    config = small("pr914", **variant)
    model, tokens = random_model(config, torch.float64), random_tokens(config)
    with torch.no_grad():
        whole = model.run_blocks(model.embed(tokens))
    torch.testing.assert_close(streams(model, tokens, lengths), whole, rtol=0, atol=1e-9)


def test_a_memory_keeps_a_state_of_one_size() -> None:
    filters, memory = random_filter(3, 2), LayerMemory(KeyValues(0))
    for length in (1, 5):
        filters(torch.ones(2, length, 3, dtype=torch.float64), memory)
        assert memory.scan is not None
        assert (memory.scan.shape, memory.scan.requires_grad) == ((2, 3, 2), False)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_variants_are_trained_and_packed_whole(variant: dict[str, Any]) -> None:
    base = PRESETS["demo"]
    config = replace(base, model=small("demo", **variant))
    model = HymbaLM(config.model)
    kinds = {type(block.attn) for block in model.blocks}
    assert kinds == ({ScanMixer} if variant.get("use_attention") is False else {FilterMixer})
    groups = {name: group.name for group in build_groups(model, config) for name in group.names}
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert all(kind == "scalar" for name, kind in groups.items() if ".s4d." in name)
    assert unpack_model(pack_model(model.state_dict(), config), config.model).keys() == model.state_dict().keys()


def test_a_scan_alone_has_nothing_of_attention() -> None:
    mixer = HymbaLM(small("demo", use_attention=False)).blocks[0].attn
    names = {name.split(".")[0] for name in mixer.state_dict()}  # type: ignore[union-attr]
    assert names == {"conv1d", "x_proj", "dt_proj", "A_log", "D", "mamba_proj", "proj"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"use_attention": False, "fusion": "norms"}, "USE_ATTENTION"),
        ({"use_attention": False, "use_hymba": False}, "USE_ATTENTION"),
        ({"use_attention": False, "kv_share": True}, "USE_ATTENTION"),
        (
            {"ssm_kind": "s4d_lin", "banks": "separate", "separate_kv": True, "fused_projection": False},
            "HYMBA_SSM_KIND",
        ),
        ({"ssm_kind": "s4d_lin", "use_attention": False}, "HYMBA_SSM_KIND"),
        ({"ssm_kind": "s4d_lin", "ssm_state": 3}, "HYMBA_SSM_STATE"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        replace(ModelConfig(), **changes)


@pytest.mark.parametrize(("hidden", "expected"), [(0, 384), (200, 200)])
def test_mlps_have_the_width_that_is_set(hidden: int, expected: int) -> None:
    for preset in ("demo", "pr852"):
        model = HymbaLM(replace(PRESETS[preset].model, model_dim=128, mlp_hidden=hidden, num_heads=4, num_layers=11))
        assert model.blocks[0].mlp.fc.weight.shape == (expected, 128)  # type: ignore[union-attr]
