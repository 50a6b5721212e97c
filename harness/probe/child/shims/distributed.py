"""Process groups of one process, which need none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ..events import replaced
from ..patch import put
from . import functional

# Operations on one tensor each; torch 2.13 has new names for two of them.
COPIED = tuple(
    """
    all_gather_into_tensor all_gather_single _all_gather_base reduce_scatter_tensor reduce_scatter_single
    _reduce_scatter_base reduce_scatter all_to_all_single scatter
    """.split()  # noqa: SIM905 - one word, one operation
)


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


def _done(async_op: bool, arguments: tuple[Any, ...] = ()) -> Done | None:
    """What an operation returns; that it goes on beside others may be said by name or by place."""
    return Done() if async_op or any(each is True for each in arguments) else None


def _argument(arguments: tuple[Any, ...], keywords: dict[str, Any], place: int, *names: str) -> Any:
    """An argument by its place, or by the name that it has in one operation or another."""
    if len(arguments) > place:
        return arguments[place]
    return next((keywords[name] for name in names if name in keywords), None)


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
    def unchanged(*arguments: Any, async_op: bool = False, **_keywords: Any) -> Done | None:
        """Sums, maxima and copies of one process are what it has."""
        return _done(async_op, arguments)

    @staticmethod
    def copied(*arguments: Any, async_op: bool = False, **keywords: Any) -> Done | None:
        """Gathered, reduced or scattered: the output is the input, or the one of a list."""
        output = _argument(arguments, keywords, 0, "output_tensor", "output", "tensor")
        source = _argument(arguments, keywords, 1, "input_tensor", "input", "input_list", "scatter_list")
        source = source[0] if isinstance(source, (list, tuple)) else source
        output.copy_(source.reshape(output.shape))
        return _done(async_op, arguments)

    @staticmethod
    def listed(*arguments: Any, async_op: bool = False, **keywords: Any) -> Done | None:
        """A list of one."""
        outputs = _argument(arguments, keywords, 0, "tensor_list", "object_list")
        _place(outputs, _argument(arguments, keywords, 1, "tensor", "obj"))
        return _done(async_op, arguments)

    @staticmethod
    def exchanged(*arguments: Any, async_op: bool = False, **keywords: Any) -> Done | None:
        """Lists of one each."""
        outputs = _argument(arguments, keywords, 0, "output_tensor_list", "scatter_object_output_list")
        _place(outputs, _argument(arguments, keywords, 1, "input_tensor_list", "scatter_object_input_list")[0])
        return _done(async_op, arguments)

    @staticmethod
    def gathered(*arguments: Any, async_op: bool = False, **keywords: Any) -> Done | None:
        """Gather to one."""
        outputs = _argument(arguments, keywords, 1, "gather_list", "object_gather_list")
        if outputs:
            _place(outputs, _argument(arguments, keywords, 0, "tensor", "obj"))
        return _done(async_op, arguments)

    @staticmethod
    def all_gathered(*arguments: Any, async_op: bool = False, **keywords: Any) -> Done | None:
        """A list of one for each of several."""
        lists = _argument(arguments, keywords, 0, "output_tensor_lists")
        for outputs, source in zip(lists, _argument(arguments, keywords, 1, "input_tensor_list"), strict=True):
            _place(outputs, source)
        return _done(async_op, arguments)


def _place(outputs: Any, source: Any) -> None:
    """Put the one thing that there is into a list."""
    if isinstance(source, torch.Tensor) and isinstance(outputs[0], torch.Tensor):
        outputs[0].copy_(source)
    else:
        outputs[0] = source


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
    )
    put(dist, **dict.fromkeys(COPIED, One.copied))
    put(dist, all_gather=One.listed, all_gather_object=One.listed, all_gather_coalesced=One.all_gathered)
    put(dist, gather=One.gathered, gather_object=One.gathered)
    put(dist, all_to_all=One.exchanged, scatter_object_list=One.exchanged)
    put(dist, **dict.fromkeys(("all_reduce", "reduce", "broadcast", "barrier", "broadcast_object_list"), One.unchanged))
    put(dist, monitored_barrier=One.unchanged, all_reduce_coalesced=One.unchanged)
    functional.install(alone=True)
    put(torch.nn.parallel, DistributedDataParallel=Alone)
    put(torch.nn.parallel.distributed, DistributedDataParallel=Alone)
