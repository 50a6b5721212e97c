"""The newer mixers against a second writing of them: loops, float64, no shared code; and what state they carry."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference_model.attention import rotary_tables
from reference_model.config import Config, ModelConfig
from reference_model.heads import HeadsMixer, ScanHead
from reference_model.mixer import HymbaMixer, LayerContext, SharedMatrixMixer
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.storage import pack_model, unpack_model

SMALL = {
    "VOCAB_SIZE": "40",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "NUM_LAYERS": "3",
    "BIGRAM_BUCKETS": "64",
    "BIGRAM_HASH_DIM": "16",
}
BY_PRESET = {
    "mini1961": {"HYMBA_LAYERS": "1"},
    "mini1961_3": {"HYMBA_LAYERS": "0,1,2", "SLIDING_WINDOW": "5"},
    "pr852_records": {"HYMBA_LAYERS": "0,1", "ROPE_DIMS": "4"},
    "pr852": {"HYMBA_LAYERS": "0,1"},
    "paper": {"HYMBA_META_TOK": "3", "SLIDING_WINDOW": "5", "SWA_GLOBAL_LAYERS": "0"},
}


def small(preset: str) -> ModelConfig:
    """Return a preset with little width and every feature."""
    return Config.from_environment(SMALL | BY_PRESET[preset], PRESETS[preset]).model


def random_model(config: ModelConfig) -> HymbaLM:
    """Build a model in float64 away from its zeros and ones."""
    generator = torch.Generator().manual_seed(3)
    model = HymbaLM(config, generator).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=torch.float64), alpha=0.2)
    return model


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float64).eps).sqrt()


def rotated(x: Tensor, dims: int, first: int = 0) -> Tensor:
    """Turn pairs (j, j + dims/2) of the row at time t by (first + t) / 10000^(2j/dims)."""
    out, half = x.clone(), dims // 2
    for time in range(len(x)):
        for pair in range(half):
            angle = (first + time) * 10_000.0 ** (-pair / half)
            a, b = x[time, pair], x[time, pair + half]
            out[time, pair] = a * math.cos(angle) - b * math.sin(angle)
            out[time, pair + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(
    q: Tensor, k: Tensor, v: Tensor, gains: Tensor, shape: ModelConfig, *, always: int, window: int
) -> Tensor:
    """Every head by itself; the first `always` keys are seen by all queries, and queries begin after the surplus."""
    width, first, heads = shape.head_dim, len(k) - len(q), []
    distance = torch.arange(first, len(k))[:, None] - torch.arange(len(k))
    hidden = (distance < 0) | ((distance >= (window or len(k))) & (torch.arange(len(k)) >= always))
    for head, gain in enumerate(gains):
        group = head // (len(gains) // shape.num_kv_heads)
        rows, columns = slice(head * width, (head + 1) * width), slice(group * width, (group + 1) * width)
        queries = rotated(norm(q[:, rows]), shape.rotary_dims, first) * gain
        scores = queries @ rotated(norm(k[:, columns]), shape.rotary_dims).T / math.sqrt(width)
        heads.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[:, columns])
    return torch.cat(heads, 1)


def scan_heads(mixer: HeadsMixer, x: Tensor) -> Tensor:
    outputs = []
    for head, part in zip(mixer.ssm_heads, torch.split(x, mixer.head_dim, 1), strict=True):
        weights = dict(head.named_parameters())
        state, rows = torch.zeros(len(weights["log_A"]), dtype=torch.float64), []
        for row in part:
            step = F.softplus(weights["dt_proj.weight"] @ row + weights["dt_proj.bias"]).clamp(max=1)
            decay = (step * -weights["log_A"].exp().clamp(max=10)).clamp(min=-0.5)
            state = decay.exp() * state + step * (weights["B_proj.weight"] @ row)
            rows.append(weights["out_proj.weight"] @ state + (weights["C_proj.weight"] @ row) @ state * row[0])
        outputs.append(torch.stack(rows))
    return torch.cat(outputs, 1)


def context_of(shape: ModelConfig, length: int, meta: int = 0) -> LayerContext:
    return LayerContext(rotary_tables(length, shape.rotary_dims, 10_000.0, torch.device("cpu")), meta)


def test_steps_of_any_size_give_the_numbers_and_gradients_of_float64() -> None:
    # The first channel gives the step, from far below what float32 can divide by; the second the input, which is 1.
    given = torch.linspace(-200, 200, 4001)
    single = ScanHead(2, 3)
    with torch.no_grad():
        single.log_A.copy_(torch.tensor([-3.0, 0.0, 3.0]))
        single.dt_proj.weight.copy_(torch.tensor([1.0, 0.0]).expand(3, 2))
        single.B_proj.weight.copy_(torch.tensor([0.0, 1.0]).expand(3, 2))
        single.dt_proj.bias.zero_()
    found = []
    for head in (single, copy.deepcopy(single).double()):
        x = torch.stack((given, torch.ones_like(given)), -1)[None].to(head.log_A.dtype).requires_grad_()
        inputs, steps, rates = head.recurrence(x)
        # What a step adds is the same whether it was cut or not; what it forgets is cut.
        wanted = F.softplus(x.detach()[..., :1]).clamp(max=1.0)
        torch.testing.assert_close(inputs * steps, wanted.expand(-1, -1, 3))
        assert (steps * rates).max() <= 0.5 * (1 + 1e-6)
        weights = [head.log_A, head.B_proj.weight, head.dt_proj.weight, head.dt_proj.bias]
        gradient, *of_weights = torch.autograd.grad((inputs + steps).sum(), [x, *weights])
        assert all(each.isfinite().all() for each in of_weights)
        found.append([inputs, steps, gradient])
    for mine, exact in zip(*found, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_heads_side_by_side_equal_their_formulas(layer: int) -> None:
    shape = small("mini1961_3")
    model = random_model(shape)
    mixer, owner = model.blocks[layer].attn, model.blocks[0].attn
    assert isinstance(mixer, HeadsMixer)
    assert isinstance(owner, HeadsMixer)
    assert mixer.lender == (() if layer == 0 else (owner,))
    x = torch.randn(11, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    weights, lent = mixer.state_dict(), owner.state_dict()
    extended = torch.cat((weights["meta_tokens"][0], x))
    keys, values = (extended @ lent[name].T for name in ("c_k.weight", "c_v.weight"))
    queries = (x @ weights["c_q.weight"].T)[:, : 2 * shape.head_dim]
    attended = attention(queries, keys, values, weights["q_gain"], shape, always=4, window=5)
    scanned = scan_heads(mixer, x @ weights["ssm_in.weight"].T)
    joined = torch.cat((attended * weights["attn_scale"], scanned * weights["ssm_scale"]), 1)
    found = mixer(x[None], context_of(shape, 4 + 11))[0]
    torch.testing.assert_close(found, joined @ weights["proj.weight"].T, rtol=1e-4, atol=1e-4)


def test_a_scan_of_heads_goes_on_from_its_state() -> None:
    mixer = random_model(small("mini1961")).blocks[1].attn
    assert isinstance(mixer, HeadsMixer)
    x = torch.randn(2, 30, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    whole, last = mixer.scan(x)
    first, state = mixer.scan(x[:, :13])
    second, end = mixer.scan(x[:, 13:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole)
    torch.testing.assert_close(end, last)


def mamba_rows(mixer: HymbaMixer, x: Tensor, gate: Tensor, steps: Tensor, low: Tensor) -> Tensor:
    """The scan's gated output before any projection; `x` is convolved already."""
    weights, size = dict(mixer.named_parameters()), mixer.scan_sizes[1]
    state, rows = torch.zeros_like(weights["A_log"]), []
    for x_now, step, row in zip(x, steps, low, strict=True):
        into, out_of = row[-2 * size : -size], row[-size:]
        state = (-step[:, None] * weights["A_log"].exp()).exp() * state + (step * x_now)[:, None] * into
        rows.append(state @ out_of + weights["D"] * x_now)
    return torch.stack(rows) * gate * gate.sigmoid()


def convolved(mixer: HymbaMixer, x: Tensor) -> Tensor:
    taps = mixer.conv1d.weight[:, 0]
    padded = torch.cat((x.new_zeros(taps.shape[1] - 1, x.shape[1]), x))
    rows = [(padded[t : t + taps.shape[1]].T * taps).sum(1) + mixer.conv1d.bias for t in range(len(x))]
    return F.silu(torch.stack(rows))


def test_the_mixer_of_the_records_script_equals_its_formulas() -> None:
    shape = small("pr852_records")
    model = random_model(shape)
    mixer = model.blocks[1].attn
    assert isinstance(mixer, SharedMatrixMixer)
    assert model.banks is not None
    bank = {name: weight[1] for name, weight in model.banks.named_parameters()}
    x = torch.randn(9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    keys = x @ bank["kv"].T
    values = keys * (x @ bank["ssm_gate"].T).sigmoid()
    attended = attention(x @ bank["qo"].T, keys, values, mixer.q_gain, shape, always=0, window=0)
    scanned, gate = (x @ bank["ssm_in"].T)[:, 2 * 16 :].chunk(2, 1)
    scanned = convolved(mixer, scanned)
    low = scanned @ bank["ssm_x"].T
    # The rank is 2: two channels have steps of their own.
    steps = F.softplus(torch.cat((low[:, :2], low.new_zeros(9, 30)), 1) + mixer.dt_bias)
    mamba = mamba_rows(mixer, scanned, gate, steps, low) @ bank["ssm_out"].T
    share = mixer.merge_alpha.sigmoid()
    expected = (share * attended + (1 - share) * mamba) @ bank["qo"].T
    torch.testing.assert_close(mixer(x[None], context_of(shape, 9))[0], expected, rtol=1e-4, atol=1e-4)


def test_the_papers_fusion_and_shared_keys_equal_their_formulas() -> None:
    shape = small("paper")
    model = random_model(shape)
    mixer, owner = model.blocks[2].attn, model.blocks[1].attn
    assert isinstance(mixer, HymbaMixer)
    assert isinstance(owner, HymbaMixer)
    assert (mixer.source, mixer.window, owner.lends) == (1, 5, True)
    generator = torch.Generator().manual_seed(4)
    earlier, x = (torch.randn(3 + 9, 32, dtype=torch.float64, generator=generator) for _ in range(2))
    context = context_of(shape, 3 + 9, meta=3)
    owner(earlier[None], context)
    found = mixer(x[None], context)[0]
    keys, values = (earlier @ owner.in_proj.weight.T)[:, :32].chunk(2, 1)
    weights = mixer.state_dict()
    attended = attention(x @ weights["c_q.weight"].T, keys, values, mixer.q_gain, shape, always=3, window=5)
    scanned, gate = (x @ weights["mamba_proj.weight"].T).chunk(2, 1)
    scanned = convolved(mixer, scanned)
    low = scanned @ weights["x_proj.weight"].T
    steps = F.softplus(low[:, :2] @ weights["dt_proj.weight"].T + weights["dt_proj.bias"])
    mamba = mamba_rows(mixer, scanned, gate, steps, low)
    mean = (norm(attended) * weights["attention_norm"] + norm(mamba) * weights["mamba_norm"]) / 2
    torch.testing.assert_close(found, mean @ weights["proj.weight"].T, rtol=1e-4, atol=1e-4)


def test_meta_tokens_stand_before_the_text_for_both_branches() -> None:
    shape = small("paper")
    model = random_model(shape)
    assert model.meta_tokens is not None
    x = torch.randn(1, 9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        stream = torch.cat((norm(model.meta_tokens), x), 1)
        expected = norm(model.run_layers(stream, meta=3)[:, 3:])
        torch.testing.assert_close(model.run_blocks(x), expected)
        for branch in ("A_log", "q_gain"):  # without one branch they act through the other
            alone = copy.deepcopy(model)
            for block in alone.blocks:
                assert isinstance(block.attn, HymbaMixer)
                {"A_log": block.attn.mamba_norm, "q_gain": block.attn.attention_norm}[branch].zero_()
            before = alone.run_blocks(x)
            alone.state_dict()["meta_tokens"].mul_(-3.0)
            assert (alone.run_blocks(x) - before).abs().amin() > 0


@pytest.mark.parametrize("preset", BY_PRESET)
def test_changing_a_token_changes_no_earlier_logit(preset: str) -> None:
    shape = small(preset)
    model = random_model(shape)
    tokens = torch.randint(40, (1, 17), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = model(tokens)
        for place in (0, 1, 7, 16):
            changed = tokens.clone()
            changed[0, place] = (tokens[0, place] + 1) % 40
            after = model(changed)
            assert torch.equal(after[:, :place], before[:, :place])
            assert not torch.equal(after[:, place], before[:, place])


@pytest.mark.parametrize("preset", BY_PRESET)
def test_a_shorter_text_has_the_same_logits(preset: str) -> None:
    model = random_model(small(preset))
    tokens = torch.randint(40, (1, 17), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens[:, :6]), model(tokens)[:, :6])


@pytest.mark.parametrize("preset", BY_PRESET)
def test_no_tensor_is_saved_twice_and_the_artifact_gives_all_back(preset: str) -> None:
    config = replace(PRESETS[preset], model=small(preset))
    config = replace(config, quant=replace(config.quant, keep_float_max_numel=256))
    model = HymbaLM(config.model, torch.Generator().manual_seed(0))
    state = model.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == sum(p.numel() for p in model.parameters())
    packed = unpack_model(pack_model(state, config), config.model)
    assert {name: tensor.shape for name, tensor in packed.items()} == {n: t.shape for n, t in state.items()}


def test_initial_scan_heads_forget_slowly() -> None:
    mixer = HymbaLM(small("mini1961"), torch.Generator().manual_seed(0)).blocks[1].attn
    assert isinstance(mixer, HeadsMixer)
    weights = dict(mixer.named_parameters())
    assert weights["ssm_heads.1.dt_proj.bias"].tolist() == [-4.0] * 16
    assert weights["ssm_heads.0.log_A"].std().item() == pytest.approx(0.5, rel=0.5)
    assert weights["meta_tokens"].std().item() == pytest.approx(0.02, rel=0.2)
    assert weights["proj.weight"].abs().max() == 0
