"""Cost of window attention per token, forward and backward, at growing lengths and equal tokens in one run.

    python benchmarks/bench_attention.py [--window 512] [--lengths 2048,8192,32768] [--rounds 5] [--threads 2]

Every batch holds as many tokens as the longest sequence, as a training batch does whatever its length. Prints
microseconds per token (best of the rounds) and the ratio to the first length: of the whole attention layer
(projections, norms, rotation, attention), of the attention alone, and what the visible pairs of a query and a key
alone give, since the first queries of a sequence see fewer keys.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from reference_model.attention import causal_attention, rotary_tables
from reference_model.config import ModelConfig
from reference_model.mixer import AttentionMixer, LayerContext

HEADS, KV_HEADS, HEAD_DIM = 8, 4, 64
WIDTH = HEADS * HEAD_DIM


def visible_pairs(length: int, window: int) -> float:
    """Keys that a query sees, on average."""
    return sum(min(position + 1, window) for position in range(length)) / length


def attention_alone(tokens: int, length: int, window: int) -> Callable[[], object]:
    """Forward and backward over random heads in the model's memory order."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(tokens // length, length, heads, HEAD_DIM, generator=generator).transpose(1, 2).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    weight = torch.ones_like(q)
    return lambda: torch.autograd.grad(causal_attention(q, k, v, window), (q, k, v), weight)


def attention_layer(tokens: int, length: int, window: int) -> Callable[[], object]:
    """Forward and backward through the model's own layer, its weights included."""
    config = ModelConfig(model_dim=WIDTH, num_heads=HEADS, num_kv_heads=KV_HEADS, sliding_window=window)
    layer = AttentionMixer(config, layer=0)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    inputs = torch.randn(tokens // length, length, WIDTH).requires_grad_()
    context = LayerContext(rotary_tables(length, HEAD_DIM, 10_000.0, inputs.device))
    gradient: Tensor = torch.ones_like(inputs)
    return lambda: torch.autograd.grad(layer(inputs, context), (inputs, *layer.parameters()), gradient)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--lengths", default="2048,4096,8192,16384,32768")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lengths = [int(length) for length in arguments.lengths.split(",")]
    tokens = max(lengths)
    actions = {
        (name, length): make(tokens, length, arguments.window)
        for name, make in (("layer", attention_layer), ("attention", attention_alone))
        for length in lengths
    }
    best = dict.fromkeys(actions, float("inf"))
    for round_number in range(arguments.rounds + 1):
        for key, action in actions.items():
            start = time.perf_counter()
            action()
            if round_number:
                best[key] = min(best[key], (time.perf_counter() - start) / tokens)
    print(
        f"window {arguments.window}, {HEADS} heads, {KV_HEADS} key/value heads, {tokens} tokens a batch, "
        f"{arguments.threads} threads"
    )
    first = lengths[0]
    for length in lengths:
        pairs = visible_pairs(length, arguments.window) / visible_pairs(first, arguments.window)
        told = [
            f"{name} {best[name, length] * 1e6:6.1f} us per token, ratio {best[name, length] / best[name, first]:4.2f}"
            for name in ("layer", "attention")
        ]
        print(f"{length:>8} tokens: {'; '.join(told)}; pairs alone {pairs:4.2f}")


if __name__ == "__main__":
    main()
