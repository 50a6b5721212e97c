"""Triton without a GPU: kernels are run program by program on PyTorch tensors, or refused."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch

from ..events import RefusedError, refuse, replaced
from ..patch import module
from . import triton_language as language

Tensor = torch.Tensor
# What tells the compiler how to run a kernel, and the kernel nothing.
COMPILER = {"num_warps", "num_stages", "num_ctas", "maxnreg", "warmup", "stream", "enable_fp_fusion"}
# So many programs run at once.
TOGETHER = 128


class Descriptor:
    """A tensor that is read and written in blocks; outside of it there are zeros."""

    def __init__(self, base: Tensor, shape: Any = None, strides: Any = None, block_shape: Any = None, **_: Any) -> None:
        self.base = base.detach()
        self.block_shape = list(block_shape)
        self.shape, self.strides = list(shape or base.shape), list(strides or base.stride())
        self.dtype = base.dtype

    @classmethod
    def from_tensor(cls, tensor: Tensor, block_shape: Any, **_: Any) -> Descriptor:
        """Describe a tensor."""
        return cls(tensor, block_shape=block_shape)

    def _parts(self, offsets: Any) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        starts = [int(offset) for offset in offsets]
        stops = [min(a + b, n) for a, b, n in zip(starts, self.block_shape, self.base.shape, strict=True)]
        here = tuple(slice(a, max(a, b)) for a, b in zip(starts, stops, strict=True))
        return here, tuple(slice(0, part.stop - part.start) for part in here)

    def load(self, offsets: Any) -> Tensor:
        """The block that begins at some offsets."""
        if language.launch().together:
            raise language.Together
        here, inside = self._parts(offsets)
        block = torch.zeros(self.block_shape, dtype=self.base.dtype)
        block[inside] = self.base[here]
        return block

    def store(self, offsets: Any, value: Tensor) -> None:
        """Write a block, as far as it lies in the tensor."""
        if language.launch().together:
            raise language.Together
        here, inside = self._parts(offsets)
        self.base[here] = value[inside].to(self.base.dtype)


class Kernel:
    """A function that is launched over a grid of programs."""

    def __init__(self, function: Callable[..., Any], extra: dict[str, Any] | None = None) -> None:
        functools.update_wrapper(self, function)
        self.fn = function
        self.extra = extra or {}
        self.rules: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.arg_names = list(inspect.signature(function).parameters)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Called from another kernel."""
        return self.fn(*arguments, **keywords)

    def run(self, *arguments: Any, grid: Any, **keywords: Any) -> None:
        """Launch."""
        self[grid](*arguments, **keywords)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launched(*arguments: Any, **keywords: Any) -> None:
            values = self._bound(arguments, keywords)
            size = grid(values) if callable(grid) else grid
            size = (size,) if isinstance(size, int) else tuple(size)
            sizes = (*(int(n) for n in size), 1, 1)[:3]
            replaced(f"triton kernel {self.fn.__name__}", "its own text, program by program on the CPU")
            self._run(sizes, {name: _argument(value) for name, value in values.items()})

        return launched

    def _bound(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in keywords.items() if name not in COMPILER or name in self.arg_names}
        signature = inspect.signature(self.fn)
        extra = {name: value for name, value in self.extra.items() if name in signature.parameters}
        bound = signature.bind_partial(*arguments, **{**extra, **given})
        bound.apply_defaults()
        values = dict(bound.arguments)
        for name, rule in self.rules.items():
            values[name] = rule(values)
        return values

    def _run(self, sizes: tuple[int, ...], values: dict[str, Any]) -> None:
        programs = list(itertools.product(*(range(n) for n in sizes)))
        with torch.no_grad(), torch._C.DisableTorchFunction():
            if len(programs) < 4 or not self._all_at_once(programs, sizes, values):
                for program in programs:
                    self._one(language.Launch(program, sizes), values)

    def _one(self, launch: language.Launch, values: dict[str, Any]) -> None:
        language.begin(launch)
        try:
            self.fn(**values)
        except (RefusedError, language.Together):
            raise
        except Exception as error:
            raise refuse(f"triton kernel {self.fn.__name__}", f"cannot be run: {error}") from error

    def _all_at_once(self, programs: list[tuple[int, ...]], sizes: tuple[int, ...], values: dict[str, Any]) -> bool:
        """Run all programs by vmap; False where one program's way depends on its number, before anything is written."""
        written: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for start in range(0, len(programs), TOGETHER):
            numbers = torch.tensor(programs[start : start + TOGETHER], dtype=torch.int32)
            memories: list[Tensor] = []

            def body(number: Tensor, memories: list[Tensor] = memories) -> Any:
                launch = language.Launch(number.unbind(), sizes, together=True)
                language.begin(launch)
                self.fn(**values)
                memories[:] = [store[0] for store in launch.stores]
                outside = torch.tensor(False) if launch.outside is None else launch.outside
                return outside | (number[0] < 0), [store[1:] for store in launch.stores]

            try:
                outside, stores = torch.vmap(body)(numbers)
            except RefusedError:
                raise
            except Exception:  # noqa: BLE001 - whatever stops it, one by one it may go
                return False
            if bool(outside.any()):
                raise refuse(f"triton kernel {self.fn.__name__}", "it reads or writes outside of a tensor")
            written += [(memory, *store) for memory, store in zip(memories, stores, strict=True)]
        for memory, place, value, valid in written:
            memory[place[valid]] = value[valid]
        return True


def _argument(value: Any) -> Any:
    return language.pointer(value) if isinstance(value, Tensor) else value


def _jit(function: Any = None, **_: Any) -> Any:
    return Kernel if function is None else Kernel(function)


def _autotune(configs: Any = (), **_: Any) -> Callable[[Kernel], Kernel]:
    def tuned(kernel: Kernel) -> Kernel:
        kernel.extra |= dict(configs[0].kwargs) if configs else {}
        return kernel

    return tuned


def _heuristics(rules: dict[str, Any]) -> Callable[[Kernel], Kernel]:
    def ruled(kernel: Kernel) -> Kernel:
        kernel.rules |= rules
        return kernel

    return ruled


class Config:
    """One way to run a kernel."""

    def __init__(self, kwargs: Any = None, **_: Any) -> None:
        self.kwargs = dict(kwargs or {})


def _next_power_of_2(value: int) -> int:
    return 1 << max(value - 1, 0).bit_length()


def install() -> None:
    """Register the package."""
    module(
        "triton",
        jit=_jit,
        autotune=_autotune,
        heuristics=_heuristics,
        Config=Config,
        cdiv=lambda a, b: -(-a // b),
        next_power_of_2=_next_power_of_2,
        set_allocator=lambda *_: None,
        JITFunction=Kernel,
        __version__="3.4.0",
    )
    module("triton.language", **language.NAMES)
    module("triton.language.math", **{name: language.NAMES[name] for name in language.MATH})
    module("triton.language.extra")
    module("triton.language.extra.cuda")
    for name in ("triton.language.extra.cuda.libdevice", "triton.language.extra.libdevice"):
        module(name, **language.DEVICE)
    module("triton.tools.tensor_descriptor", TensorDescriptor=Descriptor)
    module("triton.runtime")
