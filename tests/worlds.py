"""Runs a function in several processes of one gloo world, copies of a warm process: no start of torch for each."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reference_model.worker import Worker

WORLD_TIMEOUT_S = 120
ROOT = str(Path(__file__).parents[1])


def run_world(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(worker, *arguments)` gives in each process, by rank; it must be importable and give tensors."""
    codes = exit_codes(size, folder, function, *arguments)
    assert codes == [0] * size, f"exit codes {codes}"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def exit_codes(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[int | None]:
    """How each process ended: below 0 by a signal, None when it had to be stopped."""
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "reference_model.main"])
    places = ((rank, size, folder, function, arguments) for rank in range(size))
    started = [context.Process(target=_take_part, args=place) for place in places]
    # The processes look up by name what they run, which pytest has imported from no folder of the path.
    sys.path.insert(0, ROOT)
    for process in started:
        process.start()
    sys.path.remove(ROOT)
    for process in started:
        process.join(WORLD_TIMEOUT_S)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return codes


def _take_part(rank: int, size: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.save(function(Worker(rank, size), *arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
