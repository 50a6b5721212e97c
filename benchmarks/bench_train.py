"""Training speed of a preset: tokens per second, and the share of time in matrix products.

Run `OMP_WAIT_POLICY=PASSIVE python benchmarks/bench_train.py [PRESET] [--steps N] [--threads N]`: with other programs
on the machine, threads that spin while they wait make it more than ten times slower.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from reference_model.config import Config
from reference_model.main import build_model
from reference_model.model import HymbaLM
from reference_model.optim import Optimizers, build_optimizers
from reference_model.presets import PRESETS
from reference_model.schedule import muon_momentum

MATMUL_NAMES = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::_scaled_dot_product")


def train_step(model: HymbaLM, optimizers: Optimizers, config: Config, tokens: torch.Tensor) -> None:
    model.token_losses(tokens[:, :-1], tokens[:, 1:]).mean().backward()  # type: ignore[no-untyped-call]
    optimizers.step(0.1, muon_momentum(config.optim, 0))


def matmul_share(model: HymbaLM, optimizers: Optimizers, config: Config, tokens: torch.Tensor) -> float:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        train_step(model, optimizers, config, tokens)
    events = recorded.key_averages()
    products = sum(event.self_cpu_time_total for event in events if event.key.startswith(MATMUL_NAMES))
    return float(products / sum(event.self_cpu_time_total for event in events))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("preset", nargs="?", default="demo", choices=sorted(PRESETS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = PRESETS[arguments.preset]
    model = build_model(config, "cpu")
    optimizers = build_optimizers(model, config)
    length, batch_tokens = config.train.train_seq_len, config.train.train_batch_tokens
    tokens = torch.randint(config.model.vocab_size, (batch_tokens // length, length + 1))
    seconds = []
    for _ in range(arguments.steps + 2):
        began_s = time.perf_counter()
        train_step(model, optimizers, config, tokens)
        seconds.append(time.perf_counter() - began_s)
    middle_s = statistics.median(seconds[2:])
    print(f"preset {arguments.preset}: {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"batch {batch_tokens} tokens in sequences of {length}, {torch.get_num_threads()} threads")
    print(f"{middle_s * 1000:.1f} ms per step (median of {arguments.steps}, fastest {min(seconds) * 1000:.1f} ms)")
    print(f"{batch_tokens / middle_s:,.0f} tokens/s")
    print(f"{100 * matmul_share(model, optimizers, config, tokens):.0f}% of the time in matrix products")


if __name__ == "__main__":
    main()
