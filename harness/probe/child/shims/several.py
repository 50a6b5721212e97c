"""Process groups of several processes: gloo in the place of NCCL. Every operation is over when it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from torch._C._distributed_c10d import FileStore

from ..collective import State, watched
from ..events import refuse, replaced
from ..patch import put
from . import functional
from .distributed import Done

Real = torch.nn.parallel.DistributedDataParallel
# A process waits no longer for the others, whatever the script allows: one that has ended waiting in another place (a
# queue that is empty for it, and not for the others) would use up the time of the whole probe.
WAIT = timedelta(seconds=120)
# What gloo adds up in other types, and what it cannot even copy.
WIDER = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.int16: torch.int32,
    torch.uint16: torch.int32,
    torch.bool: torch.uint8,
}
REPLACED = tuple(
    """
    init_process_group destroy_process_group is_initialized new_group barrier all_reduce all_reduce_coalesced reduce
    broadcast all_gather all_gather_coalesced all_gather_into_tensor gather reduce_scatter_tensor reduce_scatter
    all_to_all all_to_all_single scatter
    """.split()  # noqa: SIM905 - one word, one operation
)
AWAY = ("send", "recv", "isend", "irecv", "batch_isend_irecv")


class Parallel(Real):
    """DistributedDataParallel over gloo."""

    def __init__(self, module: torch.nn.Module, *_arguments: Any, **keywords: Any) -> None:
        for name in ("device_ids", "output_device"):
            keywords.pop(name, None)
        replaced("DistributedDataParallel", "over gloo")
        super().__init__(module, **keywords)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the module; the backward pass adds gradients up."""
        if torch.is_grad_enabled() and self.require_backward_grad_sync:
            State.synchronizing = True
        return super().forward(*arguments, **keywords)


class Several:
    """The operations of a world.

    Args:
        rank: of this process.
        size: how many processes there are.
        store: file by which they find each other.
    """

    def __init__(self, rank: int, size: int, store: str) -> None:
        self.rank, self.size, self.store = rank, size, store
        self.over = False
        self.real: dict[str, Callable[..., Any]] = {name: getattr(dist, name) for name in REPLACED}

    def init_process_group(self, *_arguments: Any, timeout: Any = None, **_keywords: Any) -> None:
        """Meet."""
        replaced("torch.distributed", f"gloo instead of nccl, {self.size} processes")
        store: Any = FileStore(self.store, self.size) if self.store else None
        timeout = min(timeout or WAIT, WAIT)
        self.real["init_process_group"]("gloo", rank=self.rank, world_size=self.size, store=store, timeout=timeout)

    def destroy_process_group(self, *_arguments: Any) -> None:
        """Part. Taking gloo down can wait for ever; the process ends soon enough."""
        if not self.over:
            self.real["barrier"]()
        self.over = True

    def is_initialized(self) -> bool:
        """Whether there is a group."""
        return bool(self.real["is_initialized"]()) and not self.over

    def new_group(self, ranks: Any = None, timeout: Any = None, *_arguments: Any, **_keywords: Any) -> Any:
        """A part of the world."""
        return self.real["new_group"](ranks, timeout=min(timeout or WAIT, WAIT), backend="gloo")

    def all_reduce(self, tensor: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
        """Add up over all; gloo knows no mean, and not every type."""
        watched([tensor], [tensor], group, lambda: self._reduced(tensor, tensor, op, group))
        return _done(async_op)

    def reduce(
        self,
        tensor: Any,
        dst: Any = None,
        op: Any = dist.ReduceOp.SUM,
        group: Any = None,
        async_op: bool = False,
        **_: Any,
    ) -> Any:
        """Add up for one; the others get it too."""
        return self.all_reduce(tensor, op, group, async_op)

    def all_reduce_coalesced(
        self, tensors: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False
    ) -> Any:
        """One after the other."""
        for tensor in tensors:
            self.all_reduce(tensor, op, group)
        return _done(async_op)

    def broadcast(
        self, tensor: Any, src: Any = None, group: Any = None, async_op: bool = False, group_src: Any = None
    ) -> Any:
        """Copy from one to all."""
        source = self._source(src, group, group_src)

        def copy() -> None:
            plain = _plain(tensor)
            self.real["broadcast"](plain, source, group)
            _back(plain, tensor)

        watched([tensor], [tensor], group, copy, silent=self.rank != source)
        return _done(async_op)

    def all_gather(self, tensor_list: Any, tensor: Any, group: Any = None, async_op: bool = False) -> Any:
        """Copy from each to all."""
        watched([tensor], tensor_list, group, lambda: self._gathered(tensor_list, tensor, group))
        return _done(async_op)

    def all_gather_into_tensor(
        self, output_tensor: Any, input_tensor: Any, group: Any = None, async_op: bool = False
    ) -> Any:
        """The same into one tensor."""

        def gather() -> None:
            parts = [torch.empty_like(input_tensor) for _ in range(dist.get_world_size(group))]
            self._gathered(parts, input_tensor, group)
            output_tensor.copy_(torch.stack(parts).reshape(output_tensor.shape))

        watched([input_tensor], [output_tensor], group, gather)
        return _done(async_op)

    def gather(
        self, tensor: Any, gather_list: Any = None, dst: Any = None, group: Any = None, async_op: bool = False, **_: Any
    ) -> Any:
        """Copy from each to one; the others get nothing."""
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        watched([tensor], gather_list or [], group, lambda: self._gathered(parts, tensor, group))
        for mine, part in zip(gather_list or [], parts, strict=False):
            mine.copy_(part)
        return _done(async_op)

    def reduce_scatter_tensor(
        self, output: Any, input: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False
    ) -> Any:
        """Add up over all, a part for each."""

        def scatter() -> None:
            total = torch.empty_like(input)
            self._reduced(input, total, op, group)
            output.copy_(total.reshape(dist.get_world_size(group), -1)[dist.get_rank(group)].reshape(output.shape))

        watched([input], [output], group, scatter)
        return _done(async_op)

    def reduce_scatter(
        self, output: Any, input_list: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False
    ) -> Any:
        """The same from a list."""
        return self.reduce_scatter_tensor(output, torch.stack(list(input_list)), op, group, async_op)

    def all_to_all_single(
        self, output: Any, input: Any, *arguments: Any, async_op: bool = False, **keywords: Any
    ) -> Any:
        """A part from each for each."""
        group = keywords.get("group")
        watched([input], [output], group, lambda: self.real["all_to_all_single"](output, input, *arguments, **keywords))
        return _done(async_op)

    def all_to_all(
        self, output_tensor_list: Any, input_tensor_list: Any, group: Any = None, async_op: bool = False
    ) -> Any:
        """The same in lists, which gloo does not know."""
        sizes = [[each.numel() for each in tensors] for tensors in (output_tensor_list, input_tensor_list)]

        def exchange() -> None:
            given = torch.cat([each.reshape(-1) for each in input_tensor_list])
            made = given.new_empty(sum(sizes[0]))
            self.real["all_to_all_single"](made, given, *sizes, group=group)
            for output, part in zip(output_tensor_list, made.split(sizes[0]), strict=True):
                output.copy_(part.view_as(output))

        watched(input_tensor_list, output_tensor_list, group, exchange)
        return _done(async_op)

    def all_gather_coalesced(
        self, output_tensor_lists: Any, input_tensor_list: Any, group: Any = None, async_op: bool = False
    ) -> Any:
        """One after the other."""
        for outputs, tensor in zip(output_tensor_lists, input_tensor_list, strict=True):
            self.all_gather(outputs, tensor, group)
        return _done(async_op)

    def scatter(
        self,
        tensor: Any,
        scatter_list: Any = None,
        src: Any = None,
        group: Any = None,
        async_op: bool = False,
        group_src: Any = None,
    ) -> Any:
        """A part from one for each."""
        source = self._source(src, group, group_src)

        def scatter() -> None:
            plain = _plain(tensor)
            parts = [_plain(part) for part in scatter_list] if self.rank == source else None
            self.real["scatter"](plain, parts, source, group)
            _back(plain, tensor)

        watched(scatter_list or [], [tensor], group, scatter, silent=self.rank != source)
        return _done(async_op)

    def barrier(self, group: Any = None, async_op: bool = False, device_ids: Any = None) -> Any:
        """Wait for all."""
        self.real["barrier"](group)
        return _done(async_op)

    @staticmethod
    def _source(src: Any, group: Any, group_src: Any) -> Any:
        """The process that gives, among all."""
        everybody: Any = dist.group.WORLD
        return src if src is not None else dist.get_global_rank(group or everybody, group_src or 0)

    def _reduced(self, source: Any, target: Any, op: Any, group: Any) -> None:
        wide = source.to(WIDER.get(source.dtype, source.dtype)).contiguous()
        wide = wide.clone() if wide is source and target is not source else wide
        mean = op == dist.ReduceOp.AVG
        self.real["all_reduce"](wide, dist.ReduceOp.SUM if mean else op, group)
        if mean:
            wide = wide / dist.get_world_size(group)
        if wide is not target:
            target.copy_(wide)

    def _gathered(self, parts: Sequence[Any], tensor: Any, group: Any) -> None:
        mine = _plain(tensor)
        plain = [torch.empty_like(mine) for _ in parts]
        self.real["all_gather"](plain, mine, group)
        for part, made in zip(parts, plain, strict=True):
            _back(made, part)


def _plain(tensor: Any) -> Any:
    """The same numbers in a form that gloo can copy: in a row, and of a type that it knows."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.uint8) if tensor.dtype in {torch.int16, torch.uint16} and tensor.ndim else tensor


def _back(plain: Any, tensor: Any) -> None:
    if plain.data_ptr() != tensor.data_ptr():
        tensor.copy_(plain.view(tensor.dtype).reshape(tensor.shape))


def _done(async_op: bool) -> Done | None:
    return Done() if async_op else None


def _away(*_arguments: Any, **_keywords: Any) -> Any:
    raise refuse("torch.distributed point-to-point", "has no equivalent here")


def install(rank: int, world_size: int, store: str) -> None:
    """Replace what is replaced in a world of several."""
    world = Several(rank, world_size, store)
    put(dist, **{name: getattr(world, name) for name in REPLACED})
    # Torch 2.13 has new names for two of them.
    put(dist, **dict.fromkeys(("_all_gather_base", "all_gather_single"), world.all_gather_into_tensor))
    put(dist, **dict.fromkeys(("_reduce_scatter_base", "reduce_scatter_single"), world.reduce_scatter_tensor))
    functional.install(alone=False)
    put(dist, monitored_barrier=lambda group=None, *_, **__: world.barrier(group))
    put(dist, is_nccl_available=lambda: True, get_backend=lambda *_: "nccl", **dict.fromkeys(AWAY, _away))
    put(torch.nn.parallel, DistributedDataParallel=Parallel)
    put(torch.nn.parallel.distributed, DistributedDataParallel=Parallel)
