"""Cost of window attention per token, forward and backward, at growing lengths in one run.

    python benchmarks/bench_attention.py [--window 512] [--lengths 2048,8192,32768] [--rounds 5] [--threads 2]

Prints microseconds per token (best of the rounds) and the ratio to the first length.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from reference_model.attention import causal_attention

HEADS, KV_HEADS, HEAD_DIM = 8, 4, 64


def random_heads(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one sequence in the model's memory order."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, length, heads, HEAD_DIM, generator=generator).transpose(1, 2).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    return q, k, v


def seconds_per_token(inputs: tuple[Tensor, Tensor, Tensor], window: int, repeats: int) -> float:
    weight = torch.ones_like(inputs[0])
    start = time.perf_counter()
    for _ in range(repeats):
        torch.autograd.grad(causal_attention(*inputs, window), inputs, weight)
    return (time.perf_counter() - start) / (repeats * inputs[0].shape[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--lengths", default="2048,4096,8192,16384,32768")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lengths = [int(length) for length in arguments.lengths.split(",")]
    best = dict.fromkeys(lengths, float("inf"))
    inputs = {length: random_heads(length) for length in lengths}
    for round_number in range(arguments.rounds + 1):
        for length in lengths:
            # Short sequences repeat, so that every timing covers the same number of tokens.
            seconds = seconds_per_token(inputs[length], arguments.window, max(lengths) // length)
            if round_number:
                best[length] = min(best[length], seconds)
    print(f"window {arguments.window}, {HEADS} heads, {KV_HEADS} key/value heads, {arguments.threads} threads")
    for length, seconds in best.items():
        print(f"{length:>8} tokens: {seconds * 1e6:6.1f} us per token, ratio {seconds / best[lengths[0]]:4.2f}")


if __name__ == "__main__":
    main()
