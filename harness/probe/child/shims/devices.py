"""Devices: whatever is asked to live on a GPU lives on the CPU."""

from __future__ import annotations

import builtins
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from ..events import replaced
from ..patch import put
from ..source import DEVICE_TYPE, DEVICE_TYPE_OF

REAL_DEVICE = torch.device
REAL_GENERATOR = torch.Generator
CPU = REAL_DEVICE("cpu")
# The host's memory, where a script asks for it by name: a device of the same kind that can be told apart.
HOST = REAL_DEVICE("cpu", 0)
_TORCH = os.path.dirname(torch.__file__)
_HOST = "_probe_host"
# Factories that take a device; what this version of torch does not have is skipped.
FACTORIES = tuple(
    """
    arange as_tensor asarray bartlett_window bernoulli blackman_window empty empty_like empty_permuted empty_strided
    eye from_file full full_like hamming_window hann_window kaiser_window linspace logspace normal ones ones_like rand
    rand_like randint randint_like randn randn_like randperm range scalar_tensor sparse_coo_tensor tensor tril_indices
    triu_indices zeros zeros_like
    """.split()  # noqa: SIM905 - one word, one function
)
METHODS = ("new_tensor", "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")


def is_gpu(device: Any) -> bool:
    """Whether something names a GPU: "cuda", "cuda:0", an index, a device of that kind."""
    if isinstance(device, str):
        return device.partition(":")[0] == "cuda"
    if isinstance(device, int):
        return not isinstance(device, bool)
    return isinstance(device, REAL_DEVICE) and device.type == "cuda"


def mapped(device: Any) -> Any:
    """The device to use for the one that is asked for."""
    if is_gpu(device):
        replaced("device cuda", "tensors live on the CPU")
        return CPU
    return device


class _DeviceType(type):
    own: Any = staticmethod(lambda _path: False)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, REAL_DEVICE)

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        first = arguments[0] if arguments else keywords.get("type", keywords.get("device"))
        if is_gpu(first):
            return mapped(first)
        made = REAL_DEVICE(*arguments, **keywords)
        return HOST if made == CPU and _DeviceType.own(sys._getframe(1).f_code.co_filename) else made


class device(metaclass=_DeviceType):  # noqa: N801 - the name it has in torch
    """`torch.device`, of which GPUs are the CPU."""


class _GeneratorType(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, REAL_GENERATOR)

    def __call__(cls, device: Any = "cpu") -> Any:
        return REAL_GENERATOR(mapped(device))


class Generator(metaclass=_GeneratorType):
    """`torch.Generator`, on the CPU."""


def install(sources: Any) -> None:
    """Map devices in factories, moves and attributes."""
    _DeviceType.own = sources.own
    put(torch, device=device, Generator=Generator)
    for name in FACTORIES:
        if hasattr(torch, name):
            setattr(torch, name, _factory(getattr(torch, name)))
    for name in METHODS:
        setattr(torch.Tensor, name, _factory(getattr(torch.Tensor, name)))
    _moves()
    _stay()
    _flags(sources)
    _modules()
    real_load = torch.load

    @functools.wraps(real_load)
    def load(file: Any, map_location: Any = None, **keywords: Any) -> Any:
        if not callable(map_location) and not isinstance(map_location, dict):
            map_location = CPU
        elif isinstance(map_location, dict):
            map_location = dict.fromkeys(map_location, "cpu")
        return real_load(file, map_location=map_location, **keywords)

    put(torch, load=load, set_default_device=lambda _device: None)


def _factory(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def made(*arguments: Any, **keywords: Any) -> Any:
        if keywords.get("device") is not None:
            keywords["device"] = mapped(keywords["device"])
        if not keywords.pop("pin_memory", False):
            return function(*arguments, **keywords)
        replaced("pin_memory", "ordinary memory")
        return _host(function(*arguments, **keywords))

    return made


def _moves() -> None:
    tensor = torch.Tensor
    real_to, clone = tensor.to, tensor.clone

    def to(self: Any, *arguments: Any, **keywords: Any) -> Any:
        target = _target(arguments, keywords)
        if target is None:
            result = real_to(self, *arguments, **keywords)
            return _host(result) if _hosted(self) else result
        arguments = (CPU, *arguments[1:]) if arguments and arguments[0] is target else arguments
        if "device" in keywords:
            keywords["device"] = CPU
        moved = real_to(self, *arguments, **keywords)
        if target in ("cpu", HOST):
            return _host(_copied(moved, self))
        mapped(target)
        return _copied(moved, self) if _hosted(self) else moved

    def _copied(moved: Any, original: Any) -> Any:
        # Between two devices a copy is made; here nothing would be.
        same = moved is original or moved.data_ptr() == original.data_ptr()
        return clone(moved) if same and moved.layout == torch.strided else moved

    def cpu(self: Any, *_arguments: Any, **_keywords: Any) -> Any:
        return _host(clone(self))

    def cuda(self: Any, *_arguments: Any, **_keywords: Any) -> Any:
        mapped("cuda")
        return clone(self) if _hosted(self) else self

    def pin_memory(self: Any, *_arguments: Any) -> Any:
        replaced("pin_memory", "ordinary memory")
        return _host(clone(self))

    put(tensor, to=to, cpu=cpu, cuda=cuda, pin_memory=pin_memory)
    put(tensor, record_stream=lambda _self, _stream: None, is_pinned=lambda self, *_: _hosted(self))
    real_from_numpy = torch.from_numpy
    put(torch, from_numpy=functools.wraps(real_from_numpy)(lambda array: _host(real_from_numpy(array))))


# Methods whose result lives where the tensor does.
STAYING = ("float", "double", "half", "bfloat16", "int", "long", "clone", "contiguous", "detach", "reshape")


def _stay() -> None:
    for name in STAYING:
        setattr(torch.Tensor, name, _staying(getattr(torch.Tensor, name)))


def _staying(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def stay(self: Any, *arguments: Any, **keywords: Any) -> Any:
        result = method(self, *arguments, **keywords)
        return _host(result) if _hosted(self) else result

    return stay


def _target(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The device that a call of `to` names, if any."""
    if keywords.get("device") is not None:
        return keywords["device"]
    first = arguments[0] if arguments else None
    if isinstance(first, (str, REAL_DEVICE)) or is_gpu(first):
        return first
    return None


def _host(tensor: Any) -> Any:
    """Remember that a tensor would be in the host's memory."""
    if isinstance(tensor, torch.Tensor):
        tensor._probe_host = True  # type: ignore[attr-defined]
    return tensor


def _hosted(tensor: Any) -> bool:
    base = tensor._base
    return getattr(tensor, _HOST, False) or (base is not None and getattr(base, _HOST, False))


def _flags(sources: Any) -> None:
    """`is_cuda` as the script would see it; torch itself sees the truth."""
    real = torch._C.TensorBase.is_cuda

    def is_cuda(self: Any) -> bool:
        if not sources.own(sys._getframe(1).f_code.co_filename):
            return bool(real.__get__(self))  # type: ignore[attr-defined]
        replaced("Tensor.is_cuda", "true unless the tensor was moved to the host", exact=False)
        return not _hosted(self)

    torch.Tensor.is_cuda = property(is_cuda)  # type: ignore[assignment]
    setattr(builtins, DEVICE_TYPE, _type)
    setattr(builtins, DEVICE_TYPE_OF, _type_of)
    real_device = torch.Tensor.get_device

    put(torch.Tensor, get_device=lambda self: -1 if _hosted(self) else max(real_device(self), 0))


def _type(value: Any) -> Any:
    """`value.type`: a device that takes the place of a GPU is one."""
    return "cuda" if isinstance(value, REAL_DEVICE) and value == CPU else value.type


def _type_of(value: Any) -> Any:
    """`value.device.type`."""
    if isinstance(value, torch.Tensor) and value.device == CPU:
        return "cpu" if _hosted(value) else "cuda"
    return _type(value.device)


def _modules() -> None:
    """Moves of whole modules."""
    real = torch.nn.Module.to

    def to(self: Any, *arguments: Any, **keywords: Any) -> Any:
        arguments = tuple(mapped(each) if is_gpu(each) else each for each in arguments)
        if "device" in keywords:
            keywords["device"] = mapped(keywords["device"])
        return real(self, *arguments, **keywords)

    def to_empty(self: Any, *, device: Any = None, recurse: bool = True) -> Any:
        return real_empty(self, device=mapped(device), recurse=recurse)

    real_empty = torch.nn.Module.to_empty
    put(torch.nn.Module, to=to, to_empty=to_empty, cuda=lambda self, *_: self)
