"""Follows losses from where they are computed to where they count, through every operation of torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from .choices import ALONG, LEAST, chosen, compared, least_along
from .codes import PROBABILITY, SCORE, Tag
from .ledger import Ledger
from .operations import JOIN, LOST, NUMBERS, PRODUCTS, READ, REDUCE, SCATTER, SHAPE, SHARED, SILENT
from .sources import CALLS, recognized
from .updates import Updates


# Attributes of a tensor that something follows from; what only asks for a shape is most of all calls.
FOLLOWED = (torch.Tensor.data, torch.Tensor.grad)


class Follower(TorchFunctionMode):
    """Watches every call of torch's functions.

    Args:
        ledger: where scores go.
        updates: where gradients go.
        lost: told once of each error of our own.
    """

    def __init__(self, ledger: Ledger, updates: Updates, lost: Callable[[str, BaseException], None]) -> None:
        super().__init__()
        self.ledger, self.updates, self.tags = ledger, updates, ledger.tags
        # Whether a product was made in 16 bits since the last losses.
        self.narrow = self._told_narrow = False
        self._lost = lost
        self._aliases: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the call, then look at it."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in SILENT or (name == "__get__" and getattr(func, "__self__", None) not in FOLLOWED):
            return func(*args, **kwargs)
        if name == "__iter__" and args and isinstance(args[0], torch.Tensor) and self.tags.get(args[0]) is not None:
            return iter([self._watched(torch.select, "select", (args[0], 0, row), {}) for row in range(len(args[0]))])
        return self._watched(func, name, args, kwargs)

    def _watched(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        # Whoever follows the script line by line need not be told of every call of ours.
        lines = sys.gettrace()
        if lines is not None:
            sys.settrace(None)
        # The same as `no_grad`, which takes as long as all else that is done for most calls.
        gradients = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            self.watch(func, name, (args, kwargs), out)
        except Exception as error:  # noqa: BLE001 - a tracer must not end what it watches
            self._lost(name, error)
        finally:
            torch._C._set_grad_enabled(gradients)
            if lines is not None:
                sys.settrace(lines)
        return out

    def watch(self, func: Any, name: str, call: tuple[Any, Any], out: Any) -> None:
        """Look at one call that was made."""
        args, kwargs = call
        if _writes(func, name, kwargs):
            self.ledger.weights.writes += 1
        if name in {"__get__", "__set__"}:
            look = self._attribute if name == "__get__" else self._assigned
            look(getattr(func, "__self__", None), args[0], args[-1] if name == "__set__" else out)
            return
        tensors = list(_tensors(args)) + (list(_tensors(kwargs.values())) if kwargs else [])
        if not self.updates.stepping:
            self._meet(name, tensors)
        if self.ledger.gradients:
            self._learned(name, tensors, out)
        self._came_out(name, tensors, out)
        known = name in CALLS or isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
        if known and recognized(self, name, call, out):
            return
        if not self.tags or name in LOST:
            return
        tagged = [(tensor, tag) for tensor in tensors if (tag := self.tags.get(tensor)) is not None]
        if tagged:
            self._follow(func, name, (args, kwargs, tagged), out)

    def tag(self, tensor: Any, codes: torch.Tensor, form: str = SCORE) -> None:
        """Tag what came out."""
        if (
            isinstance(tensor, torch.Tensor)
            and tensor.is_floating_point()
            and tuple(tensor.shape) == tuple(codes.shape)
        ):
            self.tags.set(tensor, Tag(codes, form))

    def tell_narrow(self) -> None:
        """Losses of the text were made in 16 bits; it is told once."""
        if not self._told_narrow:
            self._told_narrow = True
            self.ledger.emit("precision", bits=16)

    def _follow(self, func: Any, name: str, call: tuple[Any, Any, Any], out: Any) -> None:
        args, kwargs, tagged = call
        first, tag = tagged[0]
        if name in READ:
            self.ledger.count(first, tag, name)
        elif name in SHAPE or name == "pad":
            self._shape(func, call, out)
        elif name in JOIN:
            members = [self._codes(each) for each in args[0]]
            forms = [each.form for each in map(self.tags.get, args[0]) if each is not None]
            self.tag(out, func(members, *args[1:], **_without(kwargs, "out")), forms[0])
        elif name in REDUCE:
            self._reduce(func, name, call, out)
        elif name in SCATTER or name in {"copy_", "__setitem__"}:
            self._stored(name, call)
        elif name == "where" and len(args) == 3:
            # As a function the condition comes first, as a method the tensor itself.
            condition, *values = args if args[0].dtype == torch.bool else (args[1], args[0], args[2])
            sides: Any = [self._codes(each) if isinstance(each, torch.Tensor) else torch.tensor(-1) for each in values]
            chosen(self.ledger, name, condition, *sides)
            codes: Any = torch.where(condition, *sides)
            self.tag(out, codes, tag.form)
        elif name in ALONG and len(tagged) == 1 and _dimension(args, kwargs) is not None:
            self._least(name, call, out)
        else:
            self._elementwise(name, call, out)

    def _codes(self, tensor: torch.Tensor) -> torch.Tensor:
        tag = self.tags.get(tensor)
        return torch.full(tensor.shape, -1, dtype=torch.int64) if tag is None else tag.codes

    def _shape(self, func: Any, call: tuple[Any, Any, Any], out: Any) -> None:
        """Do the same to the codes."""
        args, kwargs, tagged = call
        first, tag = tagged[0]
        if first is not args[0]:
            return
        if getattr(func, "__name__", "") == "pad":
            codes = torch.nn.functional.pad(tag.codes, args[1], value=-1)
        else:
            codes = func(tag.codes, *args[1:], **_without(kwargs, "dtype"))
        outs = out if isinstance(out, (tuple, list)) else (out,)
        every: Any = codes if isinstance(out, (tuple, list)) else (codes,)
        for one, each in zip(outs, every, strict=True):
            self.tag(one, each, tag.form)

    def _reduce(self, func: Any, name: str, call: tuple[Any, Any, Any], out: Any) -> None:
        """A sum of losses: one code for each element of what came out."""
        args, kwargs, tagged = call
        first, tag = tagged[0]
        if not isinstance(out, torch.Tensor):
            return
        values = first.detach()
        if name in {"dot", "inner", "vdot"}:
            other = args[1] if first is args[0] else args[0]
            codes = torch.where(other.detach() != 0, tag.codes, -1)
        else:
            codes = tag.codes
        if out.ndim == 0:
            self.tag(out, torch.tensor(self.tags.aggregate(codes, values, tag.form)))
            return
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        dims = [dims] if isinstance(dims, int) else list(dims or range(first.ndim))
        dims = sorted(each % first.ndim for each in dims)
        kept = [each for each in range(first.ndim) if each not in dims]
        shape = [first.shape[each] for each in kept]
        rows = codes.permute(*kept, *dims).reshape(int(np.prod(shape)), -1)
        numbers = values.permute(*kept, *dims).reshape(rows.shape)
        made = [self.tags.aggregate(a, b, tag.form) for a, b in zip(rows, numbers, strict=True)]
        self.tag(out, torch.tensor(made, dtype=torch.int64).reshape(out.shape))

    def _stored(self, name: str, call: tuple[Any, Any, Any]) -> None:
        """Losses are put into another tensor."""
        args, _, tagged = call
        target = args[0]
        if name in {"copy_", "__setitem__", "index_put_", "scatter_", "index_copy_"} and isinstance(
            target, torch.Tensor
        ):
            source = args[-1] if isinstance(args[-1], torch.Tensor) else None
            if not target.is_floating_point() or (source is None and name != "__setitem__"):
                return
            codes = self._codes(target)
            value = self._codes(source) if source is not None else torch.tensor(-1)
            form = next((each.form for each in [self.tags.get(source)] if each is not None), SCORE)
            if name == "__setitem__" and isinstance(args[1], torch.Tensor) and args[1].dtype == torch.bool:
                chosen(self.ledger, name, args[1], codes[args[1]], value)
            if name == "copy_":
                codes.copy_(value)
            else:
                getattr(codes, name)(*args[1:-1], value)
            self.tags.set(target, Tag(codes, form))
            return
        # Sums by document and the like.
        for tensor, tag in tagged:
            if tensor is not target:
                self.ledger.count(tensor, tag, name)

    def _elementwise(self, name: str, call: tuple[Any, Any, Any], out: Any) -> None:
        args, _, tagged = call
        target = args[0] if args else None
        inplace = out is target and _inplace(name)
        if inplace and self._added(name, target, tagged):
            return
        if not isinstance(out, torch.Tensor) or not out.is_floating_point():
            return
        codes = tagged[0][1].codes
        for _, tag in tagged[1:]:
            if name in LEAST:
                compared(self.ledger, name, codes, tag.codes)
            codes = self.tags.combine(codes, tag.codes)
        form = {"exp": PROBABILITY, "log": SCORE, "exp_": PROBABILITY, "log_": SCORE}.get(name, tagged[0][1].form)
        try:
            codes = codes.expand(out.shape) if codes.shape != out.shape else codes
        except RuntimeError:
            return
        self.tag(out, codes, form)

    def _least(self, name: str, call: tuple[Any, Any, Any], out: Any) -> None:
        """The best along a dimension."""
        args, kwargs, tagged = call
        made = out if isinstance(out, torch.Tensor) else out[0]
        codes = least_along(self.ledger, name, tagged[0][1].codes, _dimension(args, kwargs) or 0)
        if codes is not None:
            self.tag(made, codes.reshape(made.shape), tagged[0][1].form)

    def _added(self, name: str, target: Any, tagged: Any) -> bool:
        """Whether sums of losses were added to an account: then they count."""
        others = [(tensor, tag) for tensor, tag in tagged if tensor is not target]
        if name not in {"add_", "sub_", "__iadd__", "__isub__"} or not others or target.requires_grad:
            return False
        for tensor, tag in others:
            self.ledger.count(tensor, tag, "+=")
        return True

    def _meet(self, name: str, tensors: list[Any]) -> None:
        """Which weights take part."""
        inplace = _inplace(name) or name == "__setitem__"
        for place, tensor in enumerate(tensors):
            if _is_leaf(tensor):
                self.ledger.weights.met(tensor, used=not (inplace and place == 0))
        if name in SHARED and tensors:
            self.ledger.weights.share(tensors[0])
            self.updates.origins.leaves(self.original(tensors[0]))
        if inplace and tensors:
            self.updates.filled(name, *self._filled(tensors))

    def _attribute(self, which: Any, tensor: torch.Tensor, out: Any) -> None:
        if which is torch.Tensor.data:
            self._alias(tensor, out)
        elif which is torch.Tensor.grad and out is not None and not self.updates.stepping and self.ledger.pending.any():
            self.ledger.gradients.set(out, self.ledger.pending)

    def _assigned(self, which: Any, tensor: torch.Tensor, value: Any) -> None:
        """`.data = value`, which the counter does not tell either."""
        if which is torch.Tensor.data and _is_leaf(tensor):
            self.ledger.weights.touch(tensor)
            self.updates.filled("__set__", *self._filled([tensor, value]))

    def _filled(self, tensors: list[Any]) -> tuple[torch.Tensor, list[Any]]:
        """What is changed in place, and what it is changed by."""
        first, *others = map(self.original, tensors)
        return first, others

    def _came_out(self, name: str, tensors: list[Any], out: Any) -> None:
        """How precise a product is, and what is made of weights, if it may become weights."""
        if name in PRODUCTS:
            self.narrow |= isinstance(out, torch.Tensor) and out.dtype.itemsize == 2
        elif self.updates.origins.awake and not self.updates.stepping and name not in LOST and name not in NUMBERS:
            whole = name in SHAPE or name in JOIN or name in REDUCE
            self.updates.origins.made(map(self.original, tensors), _tensors([out]), whole=whole)

    def _alias(self, tensor: torch.Tensor, alias: Any) -> None:
        """`.data`: changes through it are not seen by the counter."""
        if not _is_leaf(tensor):
            return
        self.ledger.weights.met(tensor)
        record = self.ledger.weights.record(tensor)
        if record is not None:
            record.aliased = True
        self._aliases[alias.data_ptr()] = id(tensor)

    def original(self, tensor: torch.Tensor) -> torch.Tensor:
        """The weights that `.data` gave a tensor as another name of, or the tensor itself."""
        key = self._aliases.get(tensor.data_ptr()) if self._aliases and tensor.layout == torch.strided else None
        original = self.ledger.weights._living(key) if key is not None else None
        if original is None or original.shape != tensor.shape or original.data_ptr() != tensor.data_ptr():
            return tensor
        return original

    def _learned(self, name: str, tensors: list[Any], out: Any) -> None:
        """What is made of gradients has learned what they have."""
        if name in NUMBERS:
            return
        weights, found = self.ledger.weights, None
        for tensor in tensors:
            mine = self.ledger.gradients.get(tensor)
            if mine is not None:
                found = mine if found is None else weights.union(found, mine)
        if found is None:
            return
        for each in _tensors([out]):
            # Weights that are known are looked at themselves.
            if weights.record(each) is None and each.is_floating_point():
                self.ledger.gradients.set(each, found)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            for inner in value:
                if isinstance(inner, torch.Tensor):
                    yield inner


def _dimension(args: Any, kwargs: dict[str, Any]) -> int | None:
    """Along which a tensor is reduced; None where it is not one."""
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    return dim if type(dim) is int else None


def _writes(func: Any, name: str, kwargs: dict[str, Any]) -> bool:
    """Whether a call may change the content of a tensor that was there; of the script's own operators nobody knows."""
    known = _inplace(name) or name in {"__set__", "__setitem__", "batch_norm"} or "out" in kwargs or "inplace" in kwargs
    return known or isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))


def _inplace(name: str) -> bool:
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def _is_leaf(tensor: torch.Tensor) -> bool:
    """Whether a tensor is something to be learned; a view is never asked, for the question may raise."""
    if isinstance(tensor, torch.nn.Parameter):
        return True
    return tensor.requires_grad and tensor._base is None and tensor.is_leaf


def _without(keywords: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if name not in names}
