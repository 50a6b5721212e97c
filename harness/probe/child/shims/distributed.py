"""Process groups of one process, which need none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ..events import replaced
from ..patch import put


class Done:
    """A collective operation that is over."""

    def wait(self, *_: Any) -> bool:
        """It is."""
        return True

    def is_completed(self) -> bool:
        """It is."""
        return True

    def get_future(self) -> Any:
        """A future that has its value."""
        future: Any = torch.futures.Future()
        future.set_result(None)
        return future


class Alone(torch.nn.Module):
    """DistributedDataParallel of one process."""

    def __init__(self, module: torch.nn.Module, *_arguments: Any, **_keywords: Any) -> None:
        super().__init__()
        replaced("DistributedDataParallel", "one process: the module itself")
        self.module = module
        self.require_backward_grad_sync = True

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the module."""
        return self.module(*arguments, **keywords)

    def no_sync(self) -> Any:
        """There is nothing to synchronize."""
        import contextlib

        return contextlib.nullcontext()

    def register_comm_hook(self, *_: Any) -> None:
        """There is nothing to communicate."""


def _done(async_op: bool) -> Done | None:
    return Done() if async_op else None


class One:
    """The operations of a world of one process."""

    def __init__(self) -> None:
        self.initialized = False

    def init_process_group(self, *_arguments: Any, **_keywords: Any) -> None:
        """Begin."""
        replaced("torch.distributed", "a world of one process: collective operations return what they are given")
        self.initialized = True

    def destroy_process_group(self, *_: Any) -> None:
        """End."""
        self.initialized = False

    @staticmethod
    def unchanged(*_arguments: Any, async_op: bool = False, **_keywords: Any) -> Done | None:
        """Sums, maxima and copies of one process are what it has."""
        return _done(async_op)

    @staticmethod
    def copied(
        output: Any, source: Any = None, *_arguments: Any, async_op: bool = False, **keywords: Any
    ) -> Done | None:
        """Gathered or scattered: the output is the input."""
        source = keywords.get("input_tensor", keywords.get("input", source)) if source is None else source
        source = source[0] if isinstance(source, (list, tuple)) else source
        output.copy_(source.reshape(output.shape))
        return _done(async_op)

    @staticmethod
    def listed(
        outputs: Any, source: Any = None, *_arguments: Any, async_op: bool = False, **keywords: Any
    ) -> Done | None:
        """A list of one."""
        source = keywords.get("tensor", keywords.get("obj", source)) if source is None else source
        if isinstance(source, torch.Tensor) and isinstance(outputs[0], torch.Tensor):
            outputs[0].copy_(source)
        else:
            outputs[0] = source
        return _done(async_op)

    @staticmethod
    def gathered(
        source: Any, outputs: Any = None, *_arguments: Any, async_op: bool = False, **_keywords: Any
    ) -> Done | None:
        """Gather to one."""
        return One.listed(outputs, source, async_op=async_op) if outputs else _done(async_op)


def install() -> None:
    """Replace what is replaced in a world of one."""
    world = One()
    put(
        dist,
        is_available=lambda: True,
        is_nccl_available=lambda: True,
        is_initialized=lambda: world.initialized,
        init_process_group=world.init_process_group,
        destroy_process_group=world.destroy_process_group,
        get_rank=lambda *_: 0,
        get_world_size=lambda *_: 1,
        get_backend=lambda *_: "nccl",
        new_group=lambda *_, **__: None,
        all_gather_into_tensor=One.copied,
        _all_gather_base=One.copied,
        reduce_scatter_tensor=One.copied,
        _reduce_scatter_base=One.copied,
        reduce_scatter=One.copied,
        all_to_all_single=One.copied,
        all_gather=One.listed,
        all_gather_object=One.listed,
        gather=One.gathered,
        gather_object=One.gathered,
    )
    put(dist, **dict.fromkeys(("all_reduce", "reduce", "broadcast", "barrier", "broadcast_object_list"), One.unchanged))
    put(dist, monitored_barrier=One.unchanged, all_reduce_coalesced=One.unchanged)
    put(torch.nn.parallel, DistributedDataParallel=Alone)
    put(torch.nn.parallel.distributed, DistributedDataParallel=Alone)
