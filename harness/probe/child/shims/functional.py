"""Collective operations that return their result (`torch.distributed._functional_collectives`).

In a world of one they give copies. In a world of several the real ones work over gloo; around them is what gloo lacks,
means and sums of short floats, and what tensors have learned is carried along.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

from torch._C._distributed_c10d import _resolve_process_group

from ..collective import watched
from ..patch import put

# What gloo adds up in another type.
WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
# Versions of torch differ in which of these they have.
REPLACED = tuple(
    """
    all_reduce all_reduce_coalesced broadcast all_to_all_single all_to_all_single_autograd
    all_gather_tensor all_gather_single all_gather_tensor_autograd all_gather_single_autograd
    all_gather_into_tensor_coalesced all_gather_single_coalesced
    reduce_scatter_tensor reduce_scatter_single reduce_scatter_tensor_autograd reduce_scatter_single_autograd
    reduce_scatter_tensor_coalesced reduce_scatter_single_coalesced
    """.split()  # noqa: SIM905 - one word, one operation
)


def copies(given: Any, *_arguments: Any, **_keywords: Any) -> Any:
    """What one process has, gathered, reduced or scattered."""
    return [each.clone() for each in given] if isinstance(given, (list, tuple)) else given.clone()


def followed(real: Callable[..., Any]) -> Callable[..., Any]:
    """The operation over gloo, waited for."""
    signature = inspect.signature(real)
    first = next(iter(signature.parameters))

    def call(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords).arguments
        is_list = isinstance(bound[first], (list, tuple))
        sources = list(bound[first]) if is_list else [bound[first]]
        group = _resolve_process_group(functional._resolve_group_name(bound["group"], bound.get("tag", "")))
        mean = bound.get("reduceOp", "").lower() == "avg"
        if "reduceOp" in bound:
            bound |= {"reduceOp": "sum"} if mean else {}
            wide = [each.to(WIDER.get(each.dtype, each.dtype)) for each in sources]
            bound[first] = wide if is_list else wide[0]
        outputs: list[Any] = []

        def operate() -> None:
            made = real(**bound)
            for source, each in zip(sources, made if is_list else [made], strict=True):
                total = functional.wait_tensor(each)
                outputs.append((total / dist.get_world_size(group) if mean else total).to(source.dtype))

        watched(sources, outputs, group, operate)
        return outputs if is_list else outputs[0]

    return call


def install(*, alone: bool) -> None:
    """Replace what this version of torch has of them; `alone` in a world of one."""
    there = {name: getattr(functional, name) for name in REPLACED if hasattr(functional, name)}
    put(functional, **{name: copies if alone else followed(real) for name, real in there.items()})
    if alone:
        put(functional, wait_tensor=lambda tensor: tensor)
