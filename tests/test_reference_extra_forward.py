"""The whole forward pass against a second writing of it, straight from the formulas: loops, float64, no shared code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reference_model.config import Config, ModelConfig
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS

SMALL = {
    "VOCAB_SIZE": "40",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "BIGRAM_BUCKETS": "64",
    "BIGRAM_HASH_DIM": "8",
}


def naive_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float64).eps).sqrt()


def naive_rotation(x: Tensor, base: float) -> Tensor:
    """Turn pair (j, j + E/2) of the row at time t by t / base^(2j/E)."""
    out, half = x.clone(), x.shape[1] // 2
    for time in range(len(x)):
        for pair in range(half):
            angle = time * base ** (-pair / half)
            first, second = x[time, pair], x[time, pair + half]
            out[time, pair] = first * math.cos(angle) - second * math.sin(angle)
            out[time, pair + half] = second * math.cos(angle) + first * math.sin(angle)
    return out


def naive_attention(weights: dict[str, Tensor], x: Tensor, key_value: Tensor, shape: ModelConfig) -> Tensor:
    """Every query head by itself; a key is visible when 0 <= q - k < W."""
    width, window = shape.head_dim, shape.sliding_window or len(x)
    distance = torch.arange(len(x))[:, None] - torch.arange(len(x))
    hidden = (distance < 0) | (distance >= window)
    heads = []
    for head in range(shape.num_heads):
        group = head // (shape.num_heads // shape.num_kv_heads)
        queries = (x @ weights["c_q.weight"].T)[:, head * width : (head + 1) * width]
        keys, values = (part[:, group * width : (group + 1) * width] for part in key_value.chunk(2, 1))
        queries = naive_rotation(naive_norm(queries), shape.rope_base) * weights["q_gain"][head]
        scores = queries @ naive_rotation(naive_norm(keys), shape.rope_base).T / math.sqrt(width)
        heads.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ values)
    return torch.cat(heads, 1)


def naive_mamba(weights: dict[str, Tensor], x: Tensor, gate: Tensor, shape: ModelConfig) -> Tensor:
    taps, rank, state = weights["conv1d.weight"][:, 0], shape.ssm_dt_rank, shape.ssm_state
    padded = torch.cat((x.new_zeros(taps.shape[1] - 1, x.shape[1]), x))
    rows = [(padded[t : t + taps.shape[1]].T * taps).sum(1) + weights["conv1d.bias"] for t in range(len(x))]
    x = torch.stack([row * row.sigmoid() for row in rows])
    projected = x @ weights["x_proj.weight"].T
    steps = (projected[:, :rank] @ weights["dt_proj.weight"].T + weights["dt_proj.bias"]).exp().log1p()
    state_now, outputs = x.new_zeros(x.shape[1], state), []
    for x_now, step, row in zip(x, steps, projected, strict=True):
        into, out_of = row[rank : rank + state], row[rank + state :]
        state_now = (-step[:, None] * weights["A_log"].exp()).exp() * state_now + (step * x_now)[:, None] * into
        outputs.append(state_now @ out_of + weights["D"] * x_now)
    return (torch.stack(outputs) * gate * gate.sigmoid()) @ weights["mamba_out_proj.weight"].T


def naive_block(weights: dict[str, Tensor], x: Tensor, start: Tensor, shape: ModelConfig) -> Tensor:
    mixer = {name.removeprefix("attn."): weight for name, weight in weights.items() if name.startswith("attn.")}
    x = weights["resid_mix"][0] * x + weights["resid_mix"][1] * start
    normed, kv = naive_norm(x), 2 * shape.num_kv_heads * shape.head_dim
    if shape.fused_projection:
        projected = normed @ mixer["in_proj.weight"].T
    else:
        projected = torch.cat((normed @ mixer["kv_proj.weight"].T, normed @ mixer["mamba_proj.weight"].T), 1)
    scanned, gate = projected[:, kv:].chunk(2, 1)
    share = mixer["merge_alpha"].sigmoid()
    attention = naive_attention(mixer, normed, projected[:, :kv], shape)
    mixed = share * attention + (1 - share) * naive_mamba(mixer, scanned, gate, shape)
    x = x + weights["attn_scale"] * (mixed @ mixer["proj.weight"].T)
    hidden = naive_norm(x) @ weights["mlp.fc.weight"].T
    slope = shape.leaky_relu_slope if shape.activation == "leaky_relu2" else 0.0
    hidden = torch.where(hidden > 0, hidden, slope * hidden).square()
    return x + weights["mlp_scale"] * (hidden @ weights["mlp.proj.weight"].T)


def naive_logits(weights: dict[str, Tensor], tokens: list[int], shape: ModelConfig) -> Tensor:
    """Logits of the next token after each of `tokens`, T, V."""
    before = [0, *tokens[:-1]]
    buckets = [(prev * 92821 + cur) % shape.bigram_buckets for prev, cur in zip(before, tokens, strict=True)]
    bigram = weights["bigram_hash.table.weight"][buckets] @ weights["bigram_hash.proj.weight"].T
    embedded = weights["tok_emb.weight"][tokens] + bigram
    share = weights["smeargate.gate"].sigmoid()
    smeared = share * embedded + (1 - share) * torch.cat((torch.zeros_like(embedded[:1]), embedded[:-1]))
    x = start = naive_norm(smeared)
    half, pushed = shape.num_layers // 2, list[Tensor]()
    for layer in range(shape.num_layers):
        prefix = f"blocks.{layer}."
        block = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        if layer >= half and pushed:
            x = x + weights["skip_weights"][0, layer - half] * pushed.pop()
        x = naive_block(block, x, start, shape)
        if layer < half:
            pushed.append(x)
    head = weights["tok_emb.weight"] if shape.tie_embeddings else weights["lm_head.weight"]
    return 30 * (naive_norm(x) @ head.T / 30).tanh()


@pytest.mark.parametrize(("preset", "layers", "window"), [("pr599", 3, 0), ("pr914", 5, 7), ("pr1245", 4, 4)])
def test_logits_are_those_of_the_formulas(preset: str, layers: int, window: int) -> None:
    changes = {**SMALL, "NUM_LAYERS": str(layers), "SLIDING_WINDOW": str(window)}
    shape = Config.from_environment(changes, PRESETS[preset]).model
    generator = torch.Generator().manual_seed(3)
    model = HymbaLM(shape, generator).double()
    with torch.no_grad():
        for weight in model.parameters():
            # Away from the initial values, where zeros and ones would hide a wrong factor.
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    tokens = torch.randint(shape.vocab_size, (2, 13), generator=generator)
    with torch.no_grad():
        logits = model(tokens)
        expected = torch.stack([naive_logits(model.state_dict(), row.tolist(), shape) for row in tokens])
    assert expected.abs().max() > 1
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
