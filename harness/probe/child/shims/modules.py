"""Small libraries that a machine for training has: the real one where it is installed, else a harmless stand-in."""

from __future__ import annotations

import re
from typing import Any, Self

import torch

from ..events import refuse, replaced
from ..patch import module, present

Tensor = torch.Tensor


class Nothing:
    """Takes every call and gives itself."""

    def __call__(self, *_: Any, **__: Any) -> Nothing:
        """Log nothing."""
        replaced("wandb", "a stand-in that logs nothing")
        return self

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _wandb() -> None:
    nothing = Nothing()
    names = ("init", "log", "finish", "config", "summary", "watch", "define_metric", "save", "alert", "login")
    module("wandb", **dict.fromkeys(names, nothing), run=None)


def _tqdm() -> None:
    class tqdm:  # noqa: N801 - the name it has
        """A bar that is not shown."""

        def __init__(self, iterable: Any = None, *_: Any, **__: Any) -> None:
            self._iterable = iterable if iterable is not None else ()

        def __iter__(self) -> Any:
            return iter(self._iterable)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, *_: Any) -> None:
            """Show nothing."""

        close = set_postfix = set_description = refresh = update
        write = staticmethod(print)

    for name in ("tqdm", "tqdm.auto", "tqdm.notebook"):
        module(name, tqdm=tqdm, trange=lambda *limits, **_: tqdm(range(*limits)))


def _axes(side: str) -> list[list[str]]:
    """Axes of one side of a pattern; brackets join several."""
    return [group.strip("()").split() for group in re.findall(r"\([^)]*\)|[^\s()]+", side)]


def _open(tensor: Tensor, groups: list[list[str]], sizes: dict[str, int]) -> tuple[Tensor, list[str]]:
    """Split joined axes; sizes that are not given follow from the tensor's."""
    shape: list[int] = []
    for group, total in zip(groups, tensor.shape, strict=True):
        known = 1
        for axis in group:
            known *= sizes.get(axis, 1) if not axis.isdigit() else int(axis)
        for axis in group:
            sizes.setdefault(axis, int(axis) if axis.isdigit() else total // known)
            shape.append(sizes[axis])
    return tensor.reshape(shape), [axis for group in groups for axis in group]


def _rearranged(tensor: Any, pattern: str, **sizes: int) -> Tensor:
    """`einops.rearrange` and `repeat`: axes that only the right side names are new."""
    replaced("einops", "reshape, permute and expand")
    if "..." in pattern or not isinstance(tensor, Tensor):
        raise refuse("einops pattern", f"{pattern!r} is not understood here")
    left, _, right = pattern.partition("->")
    groups = _axes(right)
    tensor, axes = _open(tensor, _axes(left), sizes)
    tensor = tensor.squeeze([i for i, axis in enumerate(axes) if axis == "1"]) if "1" in axes else tensor
    axes = [axis for axis in axes if axis != "1"]
    wanted = [axis for group in groups for axis in group]
    named = [axis for axis in wanted if axis in axes]
    tensor = tensor.permute([axes.index(axis) for axis in named])
    for place, axis in enumerate(wanted):
        if axis not in named:
            tensor = tensor.unsqueeze(place)
            size = int(axis) if axis.isdigit() else sizes[axis]
            tensor = tensor.expand(*tensor.shape[:place], size, *tensor.shape[place + 1 :])
    counts = iter(tensor.shape)
    joined = []
    for group in groups:
        total = 1
        for _ in group:
            total *= next(counts)
        joined.append(total)
    return tensor.reshape(joined)


def _einops() -> None:
    module("einops", rearrange=_rearranged, repeat=_rearranged, einsum=lambda *a: torch.einsum(a[-1], *a[:-1]))


def install() -> None:
    """Register what is not installed."""
    for name, make in (("wandb", _wandb), ("tqdm", _tqdm), ("einops", _einops)):
        if not present(name):
            make()
    if not present("python_minifier"):
        module("python_minifier", minify=lambda text, *_, **__: text)
    if not present("dotenv"):
        module("dotenv", load_dotenv=lambda *_, **__: False)
