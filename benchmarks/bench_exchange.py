"""What dividing Muon and overlapping its messages save, in a world of gloo processes, as ratios within one run.

    python benchmarks/bench_exchange.py [--preset pr852] [--width 256] [--layers 6] [--seconds 40] [--processes 2]

Times the optimizers' step alone, gradients given, in turns: every process does all of it; Muon is divided, and each
message waited for at once; Muon is divided, and messages are under way while other work is done. Every round gives a
ratio between neighbours in time; their median and quartiles count. Processor time, of all threads of a process and the
mean of the processes, says what is computed and copied, whatever else the machine does. What overlapping saves is time
that is waited, so only the wall clock can show it: it is that of the slowest process, and other programs disturb it.
On one machine a message is a copy by the same cores that compute: what overlapping saves between machines or GPUs is
not measured here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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

FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Way:
    """How the processes work together."""

    sharded: bool
    overlapped: bool


@dataclass(frozen=True)
class Took:
    """Seconds of one step: of the slowest process, and of the processor in the mean of all."""

    wall: float
    processor: float


EVERYTHING, IN_TURNS, OVERLAPPED = "every process does everything", "divided, in turns", "divided, overlapped"
WAYS = {
    EVERYTHING: Way(sharded=False, overlapped=True),
    IN_TURNS: Way(sharded=True, overlapped=False),
    OVERLAPPED: Way(sharded=True, overlapped=True),
}
Round = dict[str, Took]


def sized(preset: str, width: int, layers: int) -> Config:
    config = PRESETS[preset]
    return replace(config, model=replace(config.model, model_dim=width, num_layers=layers))


def take_step(optimizers: Optimizers, gradients: list[torch.Tensor]) -> Took:
    for parameter, gradient in zip(optimizers.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    dist.barrier()
    wall, processor = time.perf_counter(), time.process_time()
    optimizers.step(0.01, 0.95)
    slowest = torch.tensor(time.perf_counter() - wall, dtype=torch.float64)
    total = torch.tensor(time.process_time() - processor, dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    dist.all_reduce(total)
    return Took(float(slowest), float(total) / dist.get_world_size())


def rounds_within(seconds: float, steps: Mapping[str, Callable[[], Took]]) -> list[Round]:
    """Take turns for so long; the first round is not counted."""
    began_s, found = time.perf_counter(), list[Round]()
    while True:
        found.append({name: step() for name, step in steps.items()})
        spent = torch.tensor(time.perf_counter() - began_s)
        dist.all_reduce(spent, op=dist.ReduceOp.MAX)
        if float(spent) >= seconds and len(found) > FEWEST_ROUNDS:
            return found[1:]


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
        steps[name] = partial(take_step, optimizers, gradients)
    rounds = rounds_within(arguments.seconds, steps)
    if rank == 0:
        tell(rounds, config)
    dist.barrier()
    dist.destroy_process_group()


def spread(ratios: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def tell(rounds: Sequence[Round], config: Config) -> None:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"width {config.model.model_dim}, {config.model.num_layers} layers, banks {config.model.banks}")
    print(f"{len(rounds)} rounds, {dist.get_world_size()} processes, {os.cpu_count()} cores, load {load}")
    for name in WAYS:
        wall, processor = (1e3 * min(getattr(one[name], kind) for one in rounds) for kind in ("wall", "processor"))
        print(f"{name}: {processor:.1f} ms of the processor in each process, {wall:.1f} ms on the clock, least of all")
    divided = [one[EVERYTHING].processor / one[OVERLAPPED].processor for one in rounds]
    print(f"{EVERYTHING}: {spread(divided)} times the processor time of {OVERLAPPED}")
    for name, other in ((EVERYTHING, OVERLAPPED), (IN_TURNS, OVERLAPPED)):
        faster = [one[name].wall / one[other].wall for one in rounds]
        print(f"{other} against {name}: {spread(faster)} times as fast by the clock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="pr852", choices=sorted(PRESETS))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=40.0, help="no round begins after so many")
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
