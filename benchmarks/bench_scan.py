"""The scan's backends against mambapy's parallel scan, and against themselves at other lengths, each in one run.

    python benchmarks/bench_scan.py [--shape 8,1024,256,8] [--rounds 5] [--threads 2] [--lengths 2048,8192,32768]

Forward and backward, least of the rounds; wall time, and in brackets processor time of all threads. Then time per token
by length at equal tokens, and what the forward pass leaves in memory per token: inputs, output, and the states at the
chunks' beginnings. Needs the `bench` extra.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from mambapy.pscan import pscan
from timing import measured
from torch import Tensor

from reference_model.scan import ScanInputs, selective_scan
from reference_model.scan_cpp import cpp_scan_problem

Shape: TypeAlias = tuple[int, int, int, int]


def random_inputs(shape: Shape) -> ScanInputs:
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


def kept_bytes(action: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass leaves for its backward pass, inputs and output included."""
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = action()
    return sum(held.values()) + output.nbytes


def both_ways(scan: Callable[[], Tensor], inputs: ScanInputs, weight: Tensor) -> None:
    torch.autograd.grad(scan(), inputs, weight)


def scanned(inputs: ScanInputs, backend: str, chunk: int = 64) -> Tensor:
    return selective_scan(inputs, chunk=chunk, backend=backend)[0]


def compare_backends(shape: Shape, chunks: list[int], rounds: int) -> None:
    """Print the speed of every backend against mambapy's parallel scan."""
    inputs, weight = random_inputs(shape), torch.randn(shape[:3])
    difference = (scanned(inputs, "torch") - parallel_scan(inputs)).abs().max().item()
    print(f"shape {shape}, {torch.get_num_threads()} threads, largest difference of the outputs {difference:.1e}")
    scans: dict[str, Callable[[], Tensor]] = {"mambapy": partial(parallel_scan, inputs)}
    scans |= {f"torch, chunk {chunk}": partial(scanned, inputs, "torch", chunk) for chunk in chunks}
    if not cpp_scan_problem():
        scans["cpp"] = partial(scanned, inputs, "cpp")
    took = measured({name: partial(both_ways, scan, inputs, weight) for name, scan in scans.items()}, rounds)
    for name, seconds in took.items():
        wall, processor = took["mambapy"].wall / seconds.wall, took["mambapy"].processor / seconds.processor
        print(
            f"{name:>16}: {1e3 * seconds.wall:8.1f} ms, {wall:5.2f} times mambapy's speed (processor {processor:5.2f})"
        )


def compare_lengths(lengths: list[int], rounds: int) -> None:
    """Print time and memory per token by length, at equal tokens."""
    channels, state, tokens = 256, 8, max(lengths)
    for backend in ("torch", *([] if cpp_scan_problem() else ["cpp"])):
        actions: dict[str, Callable[[], object]] = {}
        kept: dict[str, float] = {}
        for length in lengths:
            shape = (tokens // length, length, channels, state)
            inputs, weight = random_inputs(shape), torch.randn(shape[:3])
            scan = partial(scanned, inputs, backend)
            actions[f"{length}"] = partial(both_ways, scan, inputs, weight)
            kept[f"{length}"] = kept_bytes(scan) / tokens
        took = measured(actions, rounds)
        first = took[f"{lengths[0]}"]
        for name, seconds in took.items():
            print(
                f"{backend:>6}, T {name:>6}: {1e6 * seconds.wall / tokens:7.2f} us per token, "
                f"ratio {seconds.wall / first.wall:.2f} (processor {seconds.processor / first.processor:.2f}); "
                f"inputs, output and kept states {kept[name]:,.0f} bytes per token"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8,1024,256,8", help="batch, time, channels, state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", default="64", help="steps per chunk of the torch backend, separated by commas")
    parser.add_argument("--lengths", default="2048,8192,32768", help="lengths to compare, or nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch, time_steps, channels, state = map(int, arguments.shape.split(","))
    chunks = [int(chunk) for chunk in arguments.chunks.split(",")]
    compare_backends((batch, time_steps, channels, state), chunks, arguments.rounds)
    if lengths := [int(length) for length in arguments.lengths.split(",") if length]:
        compare_lengths(lengths, arguments.rounds)


if __name__ == "__main__":
    main()
