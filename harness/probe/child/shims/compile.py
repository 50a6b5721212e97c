"""`torch.compile` compiles nothing: the same operators run one by one."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from ..events import replaced
from ..patch import put


class Compiled(torch.nn.Module):
    """What `torch.compile` makes of a module: names and state as there, the module's own forward."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._modules["_orig_mod"] = module
        self.training = module.training

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the module."""
        return self._modules["_orig_mod"](*arguments, **keywords)  # type: ignore[misc]

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__["_modules"]["_orig_mod"]
        return module if name == "_orig_mod" else getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training" or name.startswith("_") or "_orig_mod" not in self.__dict__.get("_modules", {}):
            super().__setattr__(name, value)
        else:
            setattr(self._modules["_orig_mod"], name, value)


def compiled(model: Any = None, **keywords: Any) -> Any:
    """`torch.compile`, as a call and as a decorator."""
    replaced("torch.compile", "runs uncompiled: rounding differs", exact=False)
    if model is None:
        return lambda function: compiled(function, **keywords)
    return Compiled(model) if isinstance(model, torch.nn.Module) and not isinstance(model, Compiled) else model


def _unchanged(function: Any = None, *_arguments: Any, **_keywords: Any) -> Any:
    return (lambda inner: inner) if function is None else function


def install() -> None:
    """Replace the compiler and what speaks to it."""
    put(torch, compile=compiled)
    put(torch.nn.Module, compile=lambda _self, *_, **__: replaced("Module.compile", "runs uncompiled", exact=False))
    put(
        torch.compiler,
        compile=compiled,
        disable=_unchanged,
        allow_in_graph=_unchanged,
        assume_constant_result=_unchanged,
        cudagraph_mark_step_begin=lambda: None,
        reset=lambda: None,
        set_stance=lambda *_, **__: contextlib.nullcontext(),
    )
    import torch._dynamo as dynamo

    put(dynamo, reset=lambda: None, disable=_unchanged, allow_in_graph=_unchanged, mark_dynamic=lambda *_, **__: None)
    put(dynamo, maybe_mark_dynamic=lambda *_, **__: None, mark_static=lambda *_, **__: None)
