"""What a script says of itself to whoever runs it: the module `audit`, where there is one (docs/adapter.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

AUDIT_PROTOCOL = "audit/1"
# Called with positions just scored and their losses in nats, both one-dimensional.
ScoreHook: TypeAlias = Callable[[Tensor, Tensor], None]
# Called with the positions just learned from.
UpdateHook: TypeAlias = Callable[[Tensor], None]


@dataclass(frozen=True)
class Hooks:
    """Who is told of scores and updates; None where nobody is."""

    on_score: ScoreHook | None = None
    on_update: UpdateHook | None = None


def audit_hooks() -> Hooks:
    """The functions of the module `audit`, where one of this protocol can be imported."""
    try:
        import audit
    except ImportError:
        return Hooks()
    if getattr(audit, "PROTOCOL", "") != AUDIT_PROTOCOL:
        return Hooks()
    return Hooks(audit.score, audit.update)
