"""The part of Triton's language that is understood, on PyTorch tensors: what is not here is refused.

A kernel's programs run one by one, or all at once where no program's control flow depends on its number. Numbers are
those of PyTorch's operators in the types that the kernel names, so bfloat16 rounds where it would.
"""

from __future__ import annotations

import builtins
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..events import refuse

Tensor = torch.Tensor


@dataclass
class Launch:
    """One launch: the program's numbers, and what it wrote where all programs run at once."""

    program: tuple[Any, ...] = (0, 0, 0)
    grid: tuple[int, ...] = (1, 1, 1)
    together: bool = False
    stores: list[tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    outside: Any = None


_state = threading.local()


def launch() -> Launch:
    """The launch that is running in this thread."""
    return _state.launch


def begin(value: Launch) -> None:
    """Make a launch the running one."""
    _state.launch = value


class Together(Exception):  # noqa: N818 - a signal, no failure
    """The programs cannot run all at once."""


class Pointer:
    """A place in a tensor's memory, or a block of places."""

    def __init__(self, memory: Tensor, offset: Any) -> None:
        self.memory = memory
        self.offset = offset

    @property
    def dtype(self) -> Any:
        """A pointer's type; kernels ask for `element_ty` of it."""
        return _PointerType(self.memory.dtype)

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.memory, self.offset + other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Pointer:
        return Pointer(self.memory, self.offset - other)

    def __getitem__(self, key: Any) -> Pointer:
        return Pointer(self.memory, self.offset[key])


@dataclass(frozen=True)
class _PointerType:
    element_ty: Any


def pointer(tensor: Tensor) -> Pointer:
    """A pointer to a tensor's first element."""
    tensor = tensor.detach()
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    return Pointer(torch.as_strided(tensor, (count,), (1,), 0), tensor.storage_offset())


class constexpr:  # noqa: N801 - the name it has in Triton
    """A value that the compiler knows: the value itself."""

    def __new__(cls, value: Any) -> Any:
        """Return the value."""
        return value


def _places(where: Pointer, mask: Any) -> tuple[Tensor, Tensor]:
    offset = torch.as_tensor(where.offset).long()
    valid = torch.as_tensor(True if mask is None else mask)
    offset, valid = torch.broadcast_tensors(offset, valid)
    _check(((offset < 0) | (offset >= where.memory.numel())) & valid)
    return torch.where(valid, offset, 0).clamp(0, where.memory.numel() - 1), valid


def _check(outside: Tensor) -> None:
    running = launch()
    found = outside.any()
    if running.together:
        running.outside = found if running.outside is None else running.outside | found
    elif bool(found):
        raise refuse("triton kernel", "it reads or writes outside of a tensor")


def load(where: Any, mask: Any = None, other: Any = 0, **_: Any) -> Tensor:
    """Elements at places; where the mask is false, `other`."""
    place, valid = _places(where, mask)
    running = launch()
    if running.together and any(memory is where.memory for memory, *_ in running.stores):
        raise Together
    values = where.memory[place]
    return values if mask is None else torch.where(valid, values, torch.as_tensor(other).to(values.dtype))


def store(where: Any, value: Any, mask: Any = None, **_: Any) -> None:
    """Write elements at places."""
    value = torch.as_tensor(value).to(where.memory.dtype)
    place, valid = _places(where, mask)
    shape = torch.broadcast_shapes(place.shape, value.shape)
    place, valid, value = place.expand(shape), valid.expand(shape), value.expand(shape)
    running = launch()
    if running.together:
        running.stores.append((where.memory, place, value, valid))
    else:
        where.memory[place[valid]] = value[valid]


def atomic_add(where: Any, value: Any, mask: Any = None, **_: Any) -> None:
    """Add to elements; the order is the programs'."""
    if launch().together:
        raise Together
    place, valid = _places(where, mask)
    value = torch.as_tensor(value).to(where.memory.dtype).expand(place.shape)
    where.memory.index_add_(0, place[valid], value[valid])


def program_id(axis: int = 0) -> Any:
    """The number of the running program."""
    number = launch().program[axis]
    return number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.int32)


def dot(left: Tensor, right: Tensor, acc: Any = None, out_dtype: Any = None, **_: Any) -> Tensor:
    """Matrix product, summed in float32 (integers in int32)."""
    left, right = (part.float() if part.dtype.is_floating_point else part.int() for part in (left, right))
    product = left @ right
    product = product if acc is None else acc + product
    return product if out_dtype is None else product.to(out_dtype)


def _popc(value: Tensor, **_: Any) -> Tensor:
    # Sums of one, two and four bits side by side; the product adds up the four bytes in the highest one.
    bits = value.int()
    bits = bits - ((bits >> 1) & 0x55555555)
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return (bits * 0x01010101) >> 24


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda value, **_: function(_tensor(value))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _pair(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda left, right, **_: function(*_alike(left, right))


def _alike(left: Any, right: Any) -> tuple[Tensor, Tensor]:
    if isinstance(left, Tensor) and not isinstance(right, Tensor):
        return left, torch.tensor(right, dtype=left.dtype)
    if isinstance(right, Tensor) and not isinstance(left, Tensor):
        return torch.tensor(left, dtype=right.dtype), right
    return _tensor(left), _tensor(right)


def _where(condition: Any, left: Any, right: Any) -> Tensor:
    return torch.where(_tensor(condition), *_alike(left, right))


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(value: Tensor, axis: Any = None, keep_dims: bool = False, **_: Any) -> Tensor:
        axes = tuple(builtins.range(value.dim())) if axis is None else axis
        return function(value, axes, keep_dims).to(value.dtype)

    return reduce


def _shape(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    first = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments
    return tuple(int(size) for size in first)


def _cdiv(left: Any, right: Any) -> Any:
    return (left + right - 1) // right


NAMES: dict[str, Any] = {
    "constexpr": constexpr, "load": load, "store": store, "atomic_add": atomic_add, "program_id": program_id,
    "num_programs": lambda axis=0: launch().grid[axis], "dot": dot, "cdiv": _cdiv, "where": _where,
    "arange": lambda start, end: torch.arange(start, end, dtype=torch.int32),
    "zeros": lambda shape, dtype=torch.float32: torch.zeros(_shape((shape,)), dtype=dtype),
    "full": lambda shape, value, dtype=torch.float32: torch.full(_shape((shape,)), value, dtype=dtype),
    "zeros_like": torch.zeros_like, "cast": lambda value, dtype, **_: _tensor(value).to(dtype),
    "exp": _unary(torch.exp), "exp2": _unary(torch.exp2), "log": _unary(torch.log), "log2": _unary(torch.log2),
    "sqrt": _unary(torch.sqrt), "rsqrt": _unary(torch.rsqrt), "sigmoid": _unary(torch.sigmoid),
    "sin": _unary(torch.sin), "cos": _unary(torch.cos), "abs": _unary(torch.abs), "floor": _unary(torch.floor),
    "tanh": _unary(torch.tanh), "erf": _unary(torch.erf), "maximum": _pair(torch.maximum),
    "minimum": _pair(torch.minimum), "fma": lambda a, b, c: a * b + c,
    "max": _reduced(torch.amax), "min": _reduced(torch.amin), "sum": _reduced(lambda v, a, k: v.sum(a, k)),
    "cumsum": lambda value, axis=0, **_: value.cumsum(axis).to(value.dtype),
    "softmax": lambda value, axis=0, **_: value.softmax(axis),
    "reshape": lambda value, *shape, **_: value.reshape(_shape(shape)),
    "view": lambda value, *shape, **_: value.reshape(_shape(shape)),
    "permute": lambda value, *order: value.permute(_shape(order)), "trans": lambda value, *order: (
        value.permute(_shape(order)) if order else value.transpose(-1, -2)
    ),
    "split": lambda value: value.unbind(-1), "join": lambda left, right: torch.stack([left, right], -1),
    "expand_dims": lambda value, axis: value.unsqueeze(axis),
    "broadcast_to": lambda value, *shape: value.expand(_shape(shape)), "ravel": lambda value, **_: value.reshape(-1),
    "range": lambda *limits, **_: builtins.range(*(int(limit) for limit in limits)),
    "static_range": lambda *limits, **_: builtins.range(*(int(limit) for limit in limits)),
    "multiple_of": lambda value, _: value, "max_contiguous": lambda value, _: value, "assume": lambda _: None,
    "static_assert": lambda *_, **__: None, "device_assert": lambda *_, **__: None, "debug_barrier": lambda: None,
    "static_print": lambda *_, **__: None, "device_print": lambda *_, **__: None,
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64,
    "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64, "uint8": torch.uint8,
    "int1": torch.bool, "pi": math.pi,
}  # fmt: skip
MATH = ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "sin", "cos", "abs", "floor", "tanh", "erf", "fma")
DEVICE = {**{name: NAMES[name] for name in MATH}, "popc": _popc, "tanh": NAMES["tanh"]}
