"""A process's place among those that torchrun started, from the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist

from reference_model.settings import ConfigError
from reference_model.worker import Worker

PORTS = 1 << 16


@contextmanager
def started_worker(environ: Mapping[str, str]) -> Iterator[Worker]:
    """Take this process's place among those that torchrun started; by itself it is the only one.

    Raises:
        ConfigError: RANK, WORLD_SIZE or LOCAL_RANK is no place, or where the processes meet is not said.
    """
    rank, size, local = (
        process_number(environ, name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if rank >= size:
        raise ConfigError(f"RANK: {rank} is not below WORLD_SIZE ({size})")
    if size > 1:
        check_meeting(environ, size)
    if not torch.cuda.is_available():
        worker = Worker(rank, size)
    elif local >= torch.cuda.device_count():
        raise ConfigError(f"LOCAL_RANK: {local} is not below the number of GPUs ({torch.cuda.device_count()})")
    else:
        worker = Worker(rank, size, f"cuda:{local}", torch.bfloat16)
        torch.cuda.set_device(local)
        torch.set_float32_matmul_precision("high")
    if size > 1:
        dist.init_process_group("gloo" if worker.device == "cpu" else "nccl")
    try:
        yield worker
        if size > 1:
            # gloo aborts a process whose peers are still talking to it when it leaves.
            dist.barrier()
    finally:
        if size > 1:
            dist.destroy_process_group()


def check_meeting(environ: Mapping[str, str], size: int) -> None:
    """Raise ConfigError unless it is said where so many processes meet."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise ConfigError(f"{name}: missing, but WORLD_SIZE is {size}; torchrun sets it")
    if (port := process_number(environ, "MASTER_PORT", 0)) >= PORTS:
        raise ConfigError(f"MASTER_PORT: {port} is not below {PORTS}")


def process_number(environ: Mapping[str, str], name: str, default: int) -> int:
    """A number that torchrun sets; raises ConfigError that names it."""
    text = environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name}: {text!r} is not a number from 0")
    return int(text)
