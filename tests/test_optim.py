"""Muon against a plain per-matrix version, Adam against a hand-written one, and the grouping rule."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reference_model.config import Config, ModelConfig, OptimConfig
from reference_model.muon import Muon, orthogonalize
from reference_model.optim import OptimizerError, Optimizers, ParameterGroup, build_groups, build_optimizers
from reference_model.presets import PRESETS


class Toy(nn.Module):
    """Parameters with the names and shapes that the rule must place."""

    def __init__(self, extra: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(16, 8)
        self.lm_head = nn.Linear(8, 16, bias=False)
        block = nn.Module()
        block.fc = nn.Linear(8, 24, bias=True)
        block.conv = nn.Conv1d(8, 8, 4, groups=8)
        block.A_log = nn.Parameter(torch.zeros(8, 4))
        block.resid_mix = nn.Parameter(torch.ones(2, 8))
        self.blocks = nn.ModuleList([block])
        for name, value in (extra or {}).items():
            self.register_parameter(name, nn.Parameter(value))


def plain_newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    if matrix.size(0) > matrix.size(1):
        return plain_newton_schulz(matrix.T, steps).T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@given(st.integers(1, 3), st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000))
def test_batched_iteration_equals_one_matrix_at_a_time(count: int, rows: int, columns: int, seed: int) -> None:
    stack = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.stack([plain_newton_schulz(matrix, 5) for matrix in stack])
    torch.testing.assert_close(orthogonalize(stack, 5, torch.float64), expected)


def test_iteration_brings_singular_values_near_one() -> None:
    matrix = torch.randn(1, 32, 96, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalize(matrix, 5, torch.float32)[0])
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_zero_matrix_stays_zero() -> None:
    assert torch.equal(orthogonalize(torch.zeros(2, 4, 3), 5, torch.float32), torch.zeros(2, 4, 3))


def test_muon_equals_a_plain_version_over_several_steps() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    expected = [p.detach().clone() for p in parameters]
    buffers = [torch.zeros(shape) for shape in shapes]
    muon = Muon(parameters, weight_decay=0.1, steps=5, dtype=torch.float32)
    for step in range(4):
        gradients = [torch.randn(shape, generator=generator) for shape in shapes]
        momentum = 0.85 + 0.02 * step
        for i, gradient in enumerate(gradients):
            parameters[i].grad = gradient.clone()
            buffers[i] = momentum * buffers[i] + gradient
            update = plain_newton_schulz(gradient + momentum * buffers[i], 5)
            update = update * math.sqrt(max(1.0, shapes[i][0] / shapes[i][1]))
            expected[i] = expected[i] * (1 - 0.02 * 0.1) - 0.02 * update
        muon.step(0.02, momentum)
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_missing_gradient_counts_as_zero() -> None:
    still, moved = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    moved.grad = torch.eye(3)
    Muon([still, moved], weight_decay=0.0, steps=5, dtype=torch.float32).step(0.1, 0.9)
    assert torch.equal(still.detach(), torch.ones(3, 3))
    assert not torch.equal(moved.detach(), torch.ones(3, 3))


def test_adam_groups_follow_the_update_rule_with_their_own_rates() -> None:
    config = OptimConfig(beta1=0.9, beta2=0.95, adam_eps=1e-8)
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))
    groups = (ParameterGroup("embedding", ("a",), (first,), 0.5), ParameterGroup("scalar", ("b",), (second,), 0.01))
    optimizers = Optimizers(groups, config, torch.float32)
    expected, moment, square = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for step in range(1, 4):
        gradient = torch.tensor([1.0, -2.0, 0.5]) * step
        first.grad, second.grad = gradient.clone(), torch.ones(2)
        optimizers.step(0.25, 0.95)
        moment = 0.9 * moment + 0.1 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        corrected = (square / (1 - 0.95**step)).sqrt() + 1e-8
        expected = expected - 0.25 * 0.5 * (moment / (1 - 0.9**step)) / corrected
        assert first.grad is None
    torch.testing.assert_close(first.detach(), expected)
    torch.testing.assert_close(second.detach(), torch.full((2,), -3 * 0.25 * 0.01))


def test_gradients_are_clipped_together() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = (ParameterGroup("embedding", ("a",), (a,), 1.0), ParameterGroup("scalar", ("b",), (b,), 1.0))
    optimizers = Optimizers(groups, OptimConfig(grad_clip_norm=1.0, adam_eps=1.0, beta1=0.0, beta2=0.0), torch.float32)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizers.step(1.0, 0.95)
    # The clipped gradients are 0.6 and 0.8; Adam without memory moves by g / (|g| + 1).
    torch.testing.assert_close(torch.cat([a, b]).detach(), torch.tensor([-0.6 / 1.6, -0.8 / 1.8]), atol=1e-5, rtol=0)


def test_groups_hold_every_parameter_of_every_kind() -> None:
    model = Toy({"skip_weights": torch.ones(1, 1, 8)})
    groups = {group.name: group for group in build_groups(model, Config())}
    assert groups["matrix"].names == ("blocks.0.fc.weight",)
    assert groups["embedding"].names == ("tok_emb.weight",)
    assert groups["head"].names == ("lm_head.weight",)
    assert set(groups["scalar"].names) == {
        "skip_weights",
        "blocks.0.fc.bias",
        "blocks.0.conv.weight",
        "blocks.0.conv.bias",
        "blocks.0.A_log",
        "blocks.0.resid_mix",
    }


def test_embedding_rate_depends_on_tying() -> None:
    untied = Config(model=ModelConfig(tie_embeddings=False))
    rates = [{g.name: g.learning_rate for g in build_groups(Toy(), c)}["embedding"] for c in (Config(), untied)]
    assert rates == [0.05, 0.6]


def test_unknown_matrix_outside_the_blocks_is_refused() -> None:
    with pytest.raises(OptimizerError, match=r"parameter mystery \(3, 3\) is in 0 optimizer groups"):
        build_groups(Toy({"mystery": torch.zeros(3, 3)}), Config())


def test_one_tensor_under_two_names_is_refused() -> None:
    model = Toy()
    model.lm_head.weight = model.tok_emb.weight
    with pytest.raises(OptimizerError, match=r"lm_head\.weight is the same tensor as tok_emb\.weight"):
        build_groups(model, Config())


@pytest.mark.parametrize("preset", ["demo", "demo_attention"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_of_the_model_is_in_exactly_one_group(preset: str, *, tied: bool) -> None:
    from reference_model.model import HymbaLM

    base = PRESETS[preset]
    config = replace(base, model=replace(base.model, tie_embeddings=tied))
    model = HymbaLM(config.model)
    groups = build_groups(model, config)
    assert sorted(name for group in groups for name in group.names) == sorted(n for n, _ in model.named_parameters())
    assert sum(p.numel() for p in build_optimizers(model, config).parameters()) == sum(
        p.numel() for p in model.parameters()
    )
