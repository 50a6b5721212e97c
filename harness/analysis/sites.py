"""Places of a function that train and places that score: what is said of each, and of the order of the two."""

from __future__ import annotations

import ast
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from harness.analysis.bindings import Binding
from harness.analysis.program import Module, Scope
from harness.analysis.trace import Trace
from harness.model import Location

LOOPS = (ast.For, ast.AsyncFor, ast.While)
COPIES = frozenset({"deepcopy"})
Place: TypeAlias = tuple[int, int]


class Order(enum.StrEnum):
    """How training on validation tokens stands to their score."""

    TRAINED_FIRST = "trained first"
    SCORED_FIRST = "scored first"
    LATER_EPOCH = "a later epoch is scored"
    CONTEXT = "trained on a part"
    DISCARDED = "weights discarded"
    UNCLEAR = "unclear"
    NEVER = "never runs"


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order, why, and the place of the score that decides it (None when none does)."""

    order: Order
    why: str
    score: Place | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An addition to a reported score.

    Attributes:
        binding: the addition.
        trace: how its value came about.
        forward: place of the model call that made it.
    """

    binding: Binding
    trace: Trace
    forward: Place

    def made_with(self, names: Sequence[str]) -> Place:
        """Where the value was made with what is trained: the last place on the way that reads it, or the model call."""
        heads = {name.partition(".")[0] for name in names}
        places = {place for name in heads for place in self.trace.names.get(name, ()) if place <= self.binding.place}
        return max(places, default=self.forward)


@dataclass(frozen=True, slots=True)
class Step:
    """One place on the path that proves something."""

    what: str
    place: Location


@dataclass(frozen=True, slots=True)
class Site:
    """A gradient, or a call that leads to one, in a function.

    Attributes:
        node: the call.
        module: its script.
        steps: the path from it to the gradient.
        model: names of what is trained.
        data: what is trained on: the loss, or the arguments that hold validation tokens.
        closure: where the data stand when the call runs an inner function, as an optimizer does; else None.
    """

    node: ast.Call
    module: Module
    steps: tuple[Step, ...]
    model: tuple[str, ...]
    data: tuple[ast.expr, ...]
    closure: Scope | None = None

    @property
    def start(self) -> tuple[int, int]:
        """Where it begins in the text."""
        return self.node.lineno, self.node.col_offset

    @property
    def scope(self) -> Scope:
        """Where it stands."""
        return self.module.scope_of(self.node)

    @property
    def end(self) -> tuple[int, int]:
        """Where it ends in the text."""
        return self.node.end_lineno or 0, self.node.end_col_offset or 0


def loops_around(site: Site) -> list[ast.AST]:
    """The loops around a site in its function, innermost first."""
    found: list[ast.AST] = []
    for above in site.module.index.ancestors(site.node):
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            break
        if isinstance(above, LOOPS):
            found.append(above)
    return found


def written(value: ast.expr, scope: Scope) -> ast.AST:
    """A node of a value that stands in the text; a tuple of arguments that was put together does not."""
    return next((each for each in ast.walk(value) if scope.module.index.parent(each) is not None), value)
