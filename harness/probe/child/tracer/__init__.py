"""Watches what a script scores and what it learns, with the places of the validation text."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ..collective import State
from .across import Across
from .files import Files
from .follow import Follower
from .ledger import Ledger
from .positions import read_shards
from .sources import custom
from .updates import Updates

__all__ = ["finish", "install"]

_running: list[tuple[Follower, Files, Callable[..., None], tuple[Callable[[], None], ...]]] = []


def install(plan: Any, emit: Callable[..., None]) -> Follower:
    """Begin to watch.

    Args:
        plan: the plan; `experiment["validation"]` names the validation shards.
        emit: writes an event: its kind, and its fields by name.

    Returns:
        What watches; its ledger is where scores go.
    """
    paths = getattr(plan, "validation", None) or (plan.experiment or {}).get("validation") or ()
    shard = read_shards(paths)
    folder = os.path.dirname(os.path.realpath(plan.script))
    emit("tracer", tokens=shard.size, unique=round(shard.unique, 6))
    ledger = Ledger(shard, emit, folder)
    updates = Updates(ledger)
    seen: set[str] = set()

    def lost(name: str, error: BaseException) -> None:
        if name not in seen and len(seen) < 100:
            seen.add(name)
            emit("lost", name=name, error=f"{type(error).__name__}: {error}"[:300], at=ledger.at)

    follower = Follower(ledger, updates, lost)
    _across(follower, getattr(plan, "world_size", 1))
    files = Files(emit, lambda: _phase(ledger, updates))
    undo = updates.install(), _functions(follower, lost)
    files.install()
    follower.__enter__()
    _running.append((follower, files, emit, undo))
    return follower


def finish() -> None:
    """Say what the run came to; nothing is watched any more."""
    if not _running:
        return
    follower, files, emit, undo = _running.pop()
    State.carrier = None
    follower.__exit__(None, None, None)
    files.ended = True
    for each in undo:
        each()
    ledger, updates = follower.ledger, follower.updates
    updates.settle()
    begun = updates.training[1] if updates.training else 0
    first = [each.first for each in ledger.passes if each.first > begun]
    emit(
        "phase",
        name="training",
        steps=updates.training_steps,
        begins=updates.training[0] if updates.training else None,
        ends=begun or None,
    )
    emit("phase", name="evaluation", begins=min(first) if first else None)
    ledger.finish()


def _across(follower: Follower, world_size: int) -> None:
    """Follow what is learned from process to process."""
    if world_size > 1:
        State.carrier = across = Across(follower)
        follower.updates.synchronized = across.synchronized


def _phase(ledger: Ledger, updates: Updates) -> tuple[str, int]:
    """The phase as far as it is known now; the numbers tell later."""
    last = updates.training[1] if updates.training else 0
    if any(each.last > last for each in ledger.passes):
        return "evaluation", ledger.at
    return "training" if updates.training else "start", ledger.at


def _functions(follower: Follower, lost: Callable[[str, BaseException], None]) -> Callable[[], None]:
    """Operators of the script's own, which no mode sees."""
    kept = torch.autograd.Function.__dict__["apply"]
    real = kept.__func__

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        out = real(cls, *args, **kwargs)
        try:
            with torch.no_grad(), torch._C.DisableTorchFunction():
                custom(follower, [*args, *kwargs.values()], out)
        except Exception as error:  # noqa: BLE001 - a tracer must not end what it watches
            lost(cls.__name__, error)
        return out

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]

    def undo() -> None:
        torch.autograd.Function.apply = kept  # type: ignore[method-assign]

    return undo
