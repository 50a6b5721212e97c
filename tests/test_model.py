"""The model: published totals, causality by gradient in every preset, and each part by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.cli import command_line
from reference_model.config import ModelConfig
from reference_model.mixer import HymbaMixer
from reference_model.model import BigramHash, HymbaLM, SmearGate
from reference_model.params import parameter_counts
from reference_model.presets import PRESETS
from reference_model.scan import ScanInputs, selective_scan_reference

PUBLISHED_TOTALS = {"pr599": 27_161_151, "pr914": 27_161_151, "pr1245": 31_357_512}
PUBLISHED_BLOCKS = {"pr599": 3_720_713, "pr914": 3_720_713, "pr1245": 3_714_569}
TOKENS = 40


def small(preset: str) -> ModelConfig:
    """Return a preset with all its features and little width; the window binds within TOKENS."""
    config = PRESETS[preset].model
    # The banked presets' last layer only attends.
    hybrid = config.hybrid_layers if config.banks == "none" else (0, 1, 2, 3)
    return replace(
        config,
        vocab_size=50,
        num_layers=min(config.num_layers, 5),
        model_dim=32,
        num_heads=4,
        num_kv_heads=2,
        bigram_buckets=64,
        bigram_dim=16,
        sliding_window=7 if config.sliding_window else 0,
        scan_chunk=16,
        hybrid_layers=hybrid,
        global_layers=(0,) if config.global_layers is None else config.global_layers,
        meta_tokens=min(config.meta_tokens, 3),
        rope_dims=min(config.rope_dims, 4),
    )


def random_model(config: ModelConfig, seed: int = 0) -> HymbaLM:
    """Build a model without its zeros and ones, so that everything influences everything it can."""
    generator = torch.Generator().manual_seed(seed)
    model = HymbaLM(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def random_tokens(config: ModelConfig, length: int = TOKENS, seed: int = 1) -> Tensor:
    return torch.randint(0, config.vocab_size, (1, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("preset", PUBLISHED_TOTALS)
def test_published_totals(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["params", "--preset", preset]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"total {PUBLISHED_TOTALS[preset]}"
    counts = dict(parameter_counts(PRESETS[preset].model))
    assert counts["blocks.1"] == PUBLISHED_BLOCKS[preset]
    assert sum(count for name, count in counts.items() if name.startswith("blocks.0.")) == PUBLISHED_BLOCKS[preset]


def test_every_tensor_of_pull_request_599() -> None:
    block = {
        "attn.c_q.weight": 512 * 512,
        "attn.in_proj.weight": 1536 * 512,
        "attn.q_gain": 8,
        "attn.conv1d.weight": 512 * 4,
        "attn.conv1d.bias": 512,
        "attn.x_proj.weight": 48 * 512,
        "attn.dt_proj.weight": 512 * 32,
        "attn.dt_proj.bias": 512,
        "attn.A_log": 512 * 8,
        "attn.D": 512,
        "attn.mamba_out_proj.weight": 512 * 512,
        "attn.proj.weight": 512 * 512,
        "attn.merge_alpha": 1,
        "mlp.fc.weight": 2048 * 512,
        "mlp.proj.weight": 2048 * 512,
        "attn_scale": 512,
        "mlp_scale": 512,
        "resid_mix": 1024,
    }
    expected = {
        "tok_emb.weight": 1024 * 512,
        "smeargate.gate": 512,
        "bigram_hash.table.weight": 4096 * 128,
        "bigram_hash.proj.weight": 512 * 128,
        "skip_weights": 3 * 512,
        **{f"blocks.0.{name}": count for name, count in block.items()},
        **{f"blocks.{layer}": 3_720_713 for layer in range(1, 7)},
    }
    assert dict(parameter_counts(PRESETS["pr599"].model)) == expected


def test_pull_request_914_splits_the_projection_and_1245_has_a_head() -> None:
    split, untied = (dict(parameter_counts(PRESETS[preset].model)) for preset in ("pr914", "pr1245"))
    assert split["blocks.0.attn.kv_proj.weight"] == 512 * 512
    assert split["blocks.0.attn.mamba_proj.weight"] == 1024 * 512
    assert "lm_head.weight" not in split
    assert untied["lm_head.weight"] == 1024 * 512
    assert untied["skip_weights"] == 4 * 512


def test_attention_alone_has_no_scan() -> None:
    names = {name.removeprefix("blocks.0.attn.") for name, _ in parameter_counts(PRESETS["demo_attention"].model)}
    assert {"c_q.weight", "kv_proj.weight", "q_gain", "proj.weight"} <= names
    assert not names & {"in_proj.weight", "mamba_proj.weight", "A_log", "conv1d.weight", "merge_alpha"}


def position_influence(model: HymbaLM, tokens: Tensor, position: int) -> list[float]:
    """How much each position's embeddings (of the token and of its bigram) move the logits of one position."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output)

    tables = [model.tok_emb] + ([model.bigram_hash.table] if model.bigram_hash is not None else [])
    handles = [table.register_forward_hook(keep) for table in tables]
    logits = model(tokens)
    for handle in handles:
        handle.remove()
    weight = torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(3))
    gradients = torch.autograd.grad(logits[0, position] @ weight, seen)
    return torch.stack([gradient[0].abs().sum(-1) for gradient in gradients]).sum(0).tolist()


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_looks_ahead(preset: str) -> None:
    config = small(preset)
    model, tokens = random_model(config), random_tokens(config)
    for position in (0, 1, 15, 16, 23, TOKENS - 1):
        influence = position_influence(model, tokens, position)
        assert influence[position + 1 :] == [0.0] * (TOKENS - 1 - position)
        assert min(influence[: position + 1][-4:]) > 0


@pytest.mark.parametrize("preset", ["demo", "pr599", "pr914", "pr1245"])
def test_the_scan_reaches_beyond_every_window(preset: str) -> None:
    config = replace(small(preset), sliding_window=3, num_layers=1)
    influence = position_influence(random_model(config), random_tokens(config), TOKENS - 1)
    assert influence[TOKENS - 1 - 20] > 0


def test_attention_alone_sees_its_window_and_nothing_before_it() -> None:
    config = replace(
        small("demo_attention"), sliding_window=6, num_layers=1, use_smeargate=False, use_bigram_hash=False
    )
    influence = position_influence(random_model(config), random_tokens(config), 20)
    assert [position for position, amount in enumerate(influence) if amount > 0] == list(range(15, 21))


def test_a_global_layer_sees_everything() -> None:
    config = replace(small("demo_attention"), sliding_window=6, num_layers=1, global_layers=(0,))
    assert min(position_influence(random_model(config), random_tokens(config), 20)[:21]) > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_learns(preset: str) -> None:
    config = small(preset)
    model, tokens = random_model(config), random_tokens(config)
    loss = model.token_losses(tokens[:, :-1], tokens[:, 1:]).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("preset", PRESETS)
def test_an_untrained_model_knows_nothing(preset: str) -> None:
    config = small(preset)
    tokens = random_tokens(config)
    losses = HymbaLM(config, torch.Generator().manual_seed(0)).token_losses(tokens[:, :-1], tokens[:, 1:])
    assert losses.shape == (1, TOKENS - 1)
    assert losses.dtype == torch.float32
    # Zero head: exactly log V. Tied head: nearly, because the embeddings begin small.
    tolerance = 1e-5 if not config.tie_embeddings else 0.1
    assert losses.mean().item() == pytest.approx(math.log(config.vocab_size), abs=tolerance)


def test_logits_are_capped_and_losses_are_their_cross_entropy() -> None:
    config = replace(small("demo"), logit_softcap=2.0)
    model, tokens = random_model(config), random_tokens(config)
    with torch.no_grad():
        model.tok_emb.weight.mul_(100)
        logits = model(tokens)
        losses = model.token_losses(tokens[:, :-1], tokens[:, 1:])
        stream = model.run_blocks(model.embed(tokens))
        uncapped = stream @ model.tok_emb.weight.T
    assert logits.abs().max() <= 2.0
    torch.testing.assert_close(logits, 2.0 * torch.tanh(uncapped / 2.0), rtol=1e-4, atol=1e-4)
    by_hand = torch.logsumexp(logits[0, 10], 0) - logits[0, 10, tokens[0, 11]]
    assert losses[0, 10].item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_weights_come_from_the_generator_alone() -> None:
    models = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        models.append(HymbaLM(small("pr1245"), torch.Generator().manual_seed(5)))
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = HymbaLM(small("pr1245"), torch.Generator().manual_seed(6)).state_dict()
    assert not torch.equal(first["tok_emb.weight"], other["tok_emb.weight"])


def test_initial_values() -> None:
    model = HymbaLM(small("pr599"), torch.Generator().manual_seed(0))
    mixer = model.blocks[0].attn
    assert isinstance(mixer, HymbaMixer)
    query = mixer.c_q.weight
    torch.testing.assert_close(query @ query.T, torch.eye(32), rtol=0, atol=1e-5)
    assert mixer.proj.weight.abs().max() == 0
    assert mixer.A_log[3].exp().tolist() == pytest.approx(list(range(1, 9)))
    assert mixer.D.tolist() == [1.0] * 32
    assert torch.sigmoid(mixer.merge_alpha).item() == 0.5
    assert mixer.q_gain.tolist() == [1.5] * 4
    assert 0 < mixer.dt_proj.weight.abs().max() <= 1 / math.sqrt(2)
    assert model.tok_emb.weight.std().item() == pytest.approx(0.005, rel=0.1)


def test_the_mamba_branch_equals_its_formulas() -> None:
    mixer = random_model(small("pr599")).blocks[0].attn
    assert isinstance(mixer, HymbaMixer)
    generator = torch.Generator().manual_seed(4)
    x, gate = (torch.randn(2, 19, 32, generator=generator) for _ in range(2))
    with torch.no_grad():
        convolved = F.conv1d(F.pad(x.mT, (3, 0)), mixer.conv1d.weight, mixer.conv1d.bias, groups=32).mT
        u = convolved * convolved.sigmoid()
        low_rank, b, c = mixer.x_proj(u).split((2, 8, 8), -1)
        dt = torch.log1p(torch.exp(low_rank @ mixer.dt_proj.weight.T + mixer.dt_proj.bias))
        y, _ = selective_scan_reference(ScanInputs(u, dt, -mixer.A_log.exp(), b, c))
        expected = mixer.mamba_out_proj(((y + mixer.D * u) * gate * gate.sigmoid()).float())
        torch.testing.assert_close(mixer.scan(x, gate), expected, rtol=1e-4, atol=1e-5)


def test_smear_gate_by_hand() -> None:
    smear = SmearGate(2)
    with torch.no_grad():
        smear.gate.copy_(torch.tensor([0.0, math.log(3.0)]))
    blended = smear(torch.tensor([[[4.0, 4.0], [8.0, 8.0]]]))
    torch.testing.assert_close(blended, torch.tensor([[[2.0, 3.0], [6.0, 7.0]]]))


def test_bigram_hash_by_hand() -> None:
    hashed = BigramHash(replace(small("demo"), bigram_buckets=97, bigram_dim=2))
    with torch.no_grad():
        hashed.table.weight.copy_(torch.arange(97.0)[:, None].expand(97, 2))
        hashed.proj.weight.copy_(torch.eye(32, 2))
    buckets = hashed(torch.tensor([[5, 7, 0]]))[0, :, 0].tolist()
    assert buckets == [5 % 97, (5 * 92_821 + 7) % 97, (7 * 92_821) % 97]


class Adding(nn.Module):
    """Stands for a block: adds a number."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor, _x0: Tensor, _context: object) -> Tensor:
        return x + self.amount


def test_the_second_half_takes_the_first_halfs_outputs_last_one_first() -> None:
    model = HymbaLM(replace(small("pr599"), num_layers=5))
    model.blocks = nn.ModuleList(Adding(amount) for amount in (1.0, 2.0, 4.0, 8.0, 16.0))
    assert model.skip_weights is not None
    with torch.no_grad():
        model.skip_weights[0, 0] = 3.0
        model.skip_weights[0, 1] = 5.0
    start = torch.linspace(-1, 1, 32).expand(1, 2, 32)
    first, second = start + 1, start + 3
    expected = ((second + 3 * second + 4) + 5 * first + 8) + 16
    torch.testing.assert_close(model.run_blocks(start), F.rms_norm(expected, (32,)))


@pytest.mark.parametrize("preset", ["demo", "demo_attention", "pr1245"])
def test_autocast_changes_precision_only(preset: str) -> None:
    config = small(preset)
    model, tokens = random_model(config), random_tokens(config)
    plain = model.token_losses(tokens[:, :-1], tokens[:, 1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model.token_losses(tokens[:, :-1], tokens[:, 1:])
    assert low.dtype == torch.float32
    assert not torch.equal(low, plain)
    assert (low - plain).abs().mean() < 0.1
