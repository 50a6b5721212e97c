"""Seconds that dividing Muon and overlapping its messages save, in a world of gloo processes, in one run.

    OMP_NUM_THREADS=1 python benchmarks/bench_exchange.py [--preset pr852] [--width 256] [--layers 6] [--rounds 15]

Times the optimizers' step alone, gradients given, in turns: every process does all of it; Muon is divided, and each
message waited for at once; Muon is divided, and messages are under way while other work is done. A step takes as long
as the slowest process; the fastest of the rounds counts. On one machine a message is a copy by the same cores that
compute: what overlapping saves between machines or GPUs is not measured here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.distributed as dist

from reference_model.config import Config
from reference_model.exchange import Exchange
from reference_model.main import build_model
from reference_model.optim import Optimizers, build_optimizers
from reference_model.presets import PRESETS
from reference_model.worker import Worker

STEPS_OF_THE_CLAIM = 20_000


@dataclass(frozen=True)
class Way:
    """How the processes work together."""

    sharded: bool
    overlapped: bool


WAYS = {
    "every process does everything": Way(sharded=False, overlapped=True),
    "divided, in turns": Way(sharded=True, overlapped=False),
    "divided, overlapped": Way(sharded=True, overlapped=True),
}


def sized(preset: str, width: int, layers: int) -> Config:
    config = PRESETS[preset]
    return replace(config, model=replace(config.model, model_dim=width, num_layers=layers))


def step_s(optimizers: Optimizers, gradients: list[torch.Tensor]) -> float:
    """Seconds of one step, of the slowest process."""
    for parameter, gradient in zip(optimizers.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    dist.barrier()
    began_s = time.perf_counter()
    optimizers.step(0.01, 0.95)
    seconds = torch.tensor(time.perf_counter() - began_s, dtype=torch.float64)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return float(seconds)


def take_part(rank: int, arguments: argparse.Namespace, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=arguments.processes)
    worker, config = Worker(rank, arguments.processes), sized(arguments.preset, arguments.width, arguments.layers)
    steps = {}
    for name, way in WAYS.items():
        changed = replace(config, optim=replace(config.optim, muon_sharded=way.sharded))
        model = build_model(changed, "cpu")
        optimizers = build_optimizers(model, changed, exchange=Exchange(worker, overlapped=way.overlapped))
        generator = torch.Generator().manual_seed(rank)
        gradients = [torch.randn(p.shape, generator=generator) for p in optimizers.parameters()]
        steps[name] = partial(step_s, optimizers, gradients)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.rounds + 1):
        for name, step in steps.items():
            seconds[name].append(step())
    if rank == 0:
        tell({name: min(found[1:]) for name, found in seconds.items()}, config)
    dist.barrier()
    dist.destroy_process_group()


def tell(fastest: dict[str, float], config: Config) -> None:
    whole, turns, overlapped = (fastest[name] for name in WAYS)
    print(f"width {config.model.model_dim}, {config.model.num_layers} layers, banks {config.model.banks}")
    for name, seconds in fastest.items():
        print(f"{name}: {seconds * 1000:.1f} ms per step of the optimizers")
    print(f"dividing: {whole / overlapped:.2f} times as fast as every process doing everything")
    print(
        f"overlapping: {turns / overlapped:.2f} times as fast as in turns, "
        f"{(turns - overlapped) * STEPS_OF_THE_CLAIM:+.1f} s saved in {STEPS_OF_THE_CLAIM:,} steps"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="pr852", choices=sorted(PRESETS))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        places = [(rank, arguments, f"{folder}/store") for rank in range(arguments.processes)]
        started = [context.Process(target=take_part, args=place) for place in places]
        for process in started:
            process.start()
        for process in started:
            process.join()


if __name__ == "__main__":
    main()
