"""Parameter banks: which matrix stands where, gradients, and Muon on them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference_model.banks import BankLinear, ParameterBanks, bank_shapes
from reference_model.config import Config, ModelConfig
from reference_model.model import HymbaLM
from reference_model.muon import Muon
from reference_model.optim import build_groups
from reference_model.presets import PRESETS
from reference_model.settings import ConfigError


def small(preset: str) -> ModelConfig:
    model = PRESETS[preset].model
    # A layer without a scan stands between two with one.
    changes = {"model_dim": 32, "num_heads": 4, "num_kv_heads": 2, "rope_dims": 0, "bigram_dim": 16, "vocab_size": 40}
    return replace(model, num_layers=3, hybrid_layers=(0, 2), **changes)  # type: ignore[arg-type]  # all are ints


def places(model: HymbaLM) -> dict[str, tuple[str, int]]:
    return {name: (m.name, m.index) for name, m in model.named_modules() if isinstance(m, BankLinear)}


def test_separate_roles_cover_every_matrix_exactly_once() -> None:
    model = HymbaLM(small("pr852"))
    used = sorted(places(model).values())
    assert used == sorted((name, i) for name, shape in bank_shapes(model.config).items() for i in range(shape[0]))
    assert places(model)["blocks.2.attn.mamba_proj"] == ("ssm_in", 1)
    assert places(model)["blocks.1.attn.proj"] == ("qo", 3 + 1)


def test_shared_roles_serve_twice_and_leave_what_the_script_leaves() -> None:
    model = HymbaLM(small("pr852_records"))
    found = places(model)
    assert found["blocks.1.attn.c_q"] == found["blocks.1.attn.proj"] == ("qo", 1)
    assert found["blocks.1.attn.c_k"] == found["blocks.1.attn.c_v"] == ("kv", 1)
    unused = {(n, i) for n, shape in bank_shapes(model.config).items() for i in range(shape[0])} - set(found.values())
    assert unused == {("ssm_in", 1), ("ssm_gate", 1), ("ssm_x", 1), ("ssm_out", 1)}


def test_a_role_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fc: the bank's matrices are \(96, 32\), not \(5, 6\)"):
        ParameterBanks(small("pr852")).makes(0)("fc", 5, 6)


@pytest.mark.parametrize(
    ("banks", "changes", "needed"),
    [
        ("separate", {"fused_projection": True, "separate_kv": False}, "FUSED_PROJECTION=0 and SEPARATE_KV=1"),
        ("separate", {"fused_projection": True}, "FUSED_PROJECTION=0"),
        ("separate", {"separate_kv": False}, "SEPARATE_KV=1"),
        ("separate", {"separate_kv": False, "use_hymba": False}, "SEPARATE_KV=1"),
        ("separate", {"fused_projection": True, "use_hymba": False}, ""),
        ("shared", {"separate_kv": False}, "SEPARATE_KV=1"),
        ("shared", {"separate_kv": False, "hybrid_layers": None}, ""),
        ("shared", {"fused_projection": True}, ""),
    ],
)
def test_settings_whose_matrices_have_no_place_are_refused(banks: str, changes: dict[str, Any], needed: str) -> None:
    shape = small("pr852" if banks == "separate" else "pr852_records")
    if needed:
        with pytest.raises(ConfigError, match=f"^PARAMETER_BANKS: {banks} needs {needed}$"):
            replace(shape, **changes)
        return
    tokens = torch.zeros(1, 4, dtype=torch.long)
    assert HymbaLM(replace(shape, **changes)).token_losses(tokens, tokens).isfinite().all()


def test_a_model_of_attention_alone_has_no_scan_banks() -> None:
    assert set(bank_shapes(replace(small("pr852"), use_hymba=False))) == {"qo", "kv", "mlp_up", "mlp_down"}


@pytest.mark.parametrize("preset", ["pr852", "pr852_records"])
def test_taking_banks_apart_changes_no_gradient(preset: str) -> None:
    model = HymbaLM(small(preset), torch.Generator().manual_seed(0))
    assert model.banks is not None
    tokens = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    gradients = []
    for apart in (True, False):
        stream = model.embed(tokens)
        out = model.run_blocks(stream) if apart else F.rms_norm(model.run_layers(stream, 0), (32,))
        gradients.append(torch.autograd.grad(out[..., 0].square().sum(), list(model.banks.parameters())))
        assert not model.banks.apart
    for together, single in zip(*gradients, strict=True):
        assert together.abs().max() > 0
        torch.testing.assert_close(together, single)
    # What was taken apart for a pass is not part of the model.
    assert set(copy.deepcopy(model).state_dict()) == set(model.state_dict())


def test_the_outputs_begin_at_zero_where_they_have_matrices_of_their_own() -> None:
    separate, shared = (
        HymbaLM(small(preset), torch.Generator().manual_seed(0)).state_dict() for preset in ("pr852", "pr852_records")
    )
    assert separate["banks.qo"][3:].abs().max() == 0
    assert separate["banks.mlp_down"].abs().max() == 0
    eye = torch.eye(32)
    for query in (*separate["banks.qo"][:3], *shared["banks.qo"]):
        torch.testing.assert_close(query @ query.T, eye, rtol=0, atol=1e-5)


def test_muon_treats_a_bank_as_its_matrices() -> None:
    generator = torch.Generator().manual_seed(1)
    bank = nn.Parameter(torch.randn(3, 6, 4, generator=generator))
    gradient = torch.randn(3, 6, 4, generator=generator)
    single = [nn.Parameter(matrix.clone()) for matrix in bank.detach()]
    other = nn.Parameter(torch.ones(6, 4))
    bank.grad, other.grad = gradient.clone(), torch.ones(6, 4)
    for parameter, part in zip(single, gradient, strict=True):
        parameter.grad = part.clone()
    for parameters in ([bank, other], single):
        Muon(parameters, weight_decay=0.1, steps=5, dtype=torch.float32).step(0.02, 0.9)
    torch.testing.assert_close(bank.detach(), torch.stack([parameter.detach() for parameter in single]))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_of_every_preset_is_in_exactly_one_group(preset: str) -> None:
    config = PRESETS[preset]
    with torch.device("meta"):
        model = HymbaLM(config.model)
    groups = {group.name: group.names for group in build_groups(model, config)}
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert {name for name in names if name.startswith("banks.")} <= set(groups["matrix"])
    assert not any("meta_tokens" in name for name in groups["matrix"])


def test_a_bank_outside_the_model_is_no_matrix() -> None:
    model = nn.Module()
    model.bank = nn.Parameter(torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match=r"parameter bank \(2, 3, 3\) is in 0 optimizer groups"):
        build_groups(model, Config())
