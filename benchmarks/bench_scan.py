"""Chunked and compiled scan against mambapy's parallel scan, forward and backward, interleaved in one run.

    python benchmarks/bench_scan.py [--shape 8,1024,256,8] [--rounds 5] [--threads 2] [--chunks 64]

Prints milliseconds (best of the rounds) and the ratio; needs the `bench` extra.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from mambapy.pscan import pscan
from torch import Tensor

from reference_model.scan import ScanInputs, selective_scan
from reference_model.scan_cpp import cpp_scan_problem


def random_inputs(shape: tuple[int, int, int, int]) -> ScanInputs:
    batch, time_steps, channels, state = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    inputs = ScanInputs(
        draw(batch, time_steps, channels),
        F.softplus(draw(batch, time_steps, channels)),
        -torch.arange(1.0, state + 1).repeat(channels, 1),
        draw(batch, time_steps, state),
        draw(batch, time_steps, state),
    )
    return ScanInputs(*(tensor.requires_grad_() for tensor in inputs))


def parallel_scan(inputs: ScanInputs) -> Tensor:
    """Compute the same outputs with mambapy, prepared the way mambapy's own Mamba block does."""
    decay = torch.exp(inputs.dt_BTD[..., None] * inputs.A_DN)
    entering = (inputs.dt_BTD * inputs.x_BTD)[..., None] * inputs.B_BTN[:, :, None]
    outputs: Tensor = (pscan(decay, entering) @ inputs.C_BTN[..., None]).squeeze(-1)
    return outputs


def best_seconds(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time every action once per round, in turn, after one round that is not counted."""
    best = dict.fromkeys(actions, float("inf"))
    for round_number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if round_number:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8,1024,256,8", help="batch, time, channels, state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", default="64", help="steps per chunk, several separated by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch, time_steps, channels, state = map(int, arguments.shape.split(","))
    inputs = random_inputs((batch, time_steps, channels, state))
    weight = torch.randn(batch, time_steps, channels)
    chunks = [int(chunk) for chunk in arguments.chunks.split(",")]

    def backward(output: Tensor) -> None:
        torch.autograd.grad(output, inputs, weight)

    difference = (selective_scan(inputs, chunk=chunks[0])[0] - parallel_scan(inputs)).abs().max().item()
    print(f"shape {arguments.shape}, {arguments.threads} threads, largest difference of the outputs {difference:.1e}")
    actions: dict[str, Callable[[], object]] = {"mambapy": lambda: backward(parallel_scan(inputs))}
    for chunk in chunks:
        actions[f"chunk {chunk}"] = lambda chunk=chunk: backward(selective_scan(inputs, chunk=chunk)[0])  # type: ignore[misc]  # a default argument binds the loop's value
    if not cpp_scan_problem():
        actions["compiled"] = lambda: backward(selective_scan(inputs, backend="cpp")[0])
    best = best_seconds(actions, arguments.rounds)
    for name, seconds in best.items():
        print(f"{name:>10}: {seconds * 1e3:8.1f} ms, {best['mambapy'] / seconds:5.2f} times mambapy's speed")


if __name__ == "__main__":
    main()
