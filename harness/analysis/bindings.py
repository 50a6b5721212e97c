"""What gives a name a value: assignments, loops, `with`, and calls that put something into an object."""

from __future__ import annotations

import ast
from typing import NamedTuple, TypeAlias

from harness.analysis.index import Index

_FILLING = frozenset(
    {"append", "extend", "insert", "add", "add_", "copy_", "update", "appendleft", "index_add_", "scatter_add_"}
)


class Binding(NamedTuple):
    """One place that gives a name a value.

    Attributes:
        place: line and column from which it holds: the end of the value.
        value: the expression that the value comes from.
        whole: True when the name is that value; False when it is an item, an element or a part of it, or is
            changed with it (`for x in value`, `x, y = value`, `x[i] = value`, `x += value`, `with value as x`).
        replaces: False when the old value remains in part (`x[i] = value`, `x += value`).
        block: the node whose block holds it; the loop or `with` itself for its own targets.
    """

    place: tuple[int, int]
    value: ast.expr
    whole: bool
    replaces: bool
    block: ast.AST | None

    @property
    def line(self) -> int:
        """The line."""
        return self.place[0]


_Bound: TypeAlias = tuple[ast.expr, Binding]


def bound(node: ast.AST | None, index: Index) -> list[_Bound]:
    """The targets that a node gives a value, each with what it is bound to."""
    if isinstance(node, ast.Call):
        return _filled(node, index)
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign)):
        if node.value is None:
            return []
        value, added, block = node.value, isinstance(node, ast.AugAssign), index.parent(node)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [pair for each in targets for pair in _targets(each, value, block, whole=not added, replaces=not added)]
    return _taken(node, index)


def _taken(node: ast.AST | None, index: Index) -> list[_Bound]:
    """The targets of loops and `with`, which hold an item of the value or what it opens."""
    if isinstance(node, ast.withitem):
        opened = node.optional_vars
        return [] if opened is None else _targets(opened, node.context_expr, index.parent(node), whole=False)
    if isinstance(node, ast.comprehension):
        # Its names hold in the text before it, too.
        return _targets(node.target, node.iter, None, whole=False, place=(0, 0))
    return _targets(node.target, node.iter, node, whole=False) if isinstance(node, (ast.For, ast.AsyncFor)) else []


def _filled(node: ast.Call, index: Index) -> list[_Bound]:
    """What a method call puts into the object that it is called on: `items.append(value)`."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in _FILLING and node.args:
        return _targets(node.func.value, node.args[-1], index.parent(node), whole=False, replaces=False)
    return []


def _targets(
    target: ast.expr,
    value: ast.expr,
    block: ast.AST | None,
    *,
    whole: bool,
    replaces: bool = True,
    place: tuple[int, int] | None = None,
) -> list[_Bound]:
    place = place or (value.end_lineno or value.lineno, value.end_col_offset or value.col_offset)
    if isinstance(target, (ast.Tuple, ast.List)):
        pairs = value.elts if whole and isinstance(value, (ast.Tuple, ast.List)) else []
        matched = len(pairs) == len(target.elts)
        parts = pairs if matched else [value] * len(target.elts)
        return [
            pair
            for each, part in zip(target.elts, parts, strict=True)
            for pair in _targets(each, part, block, whole=matched, replaces=replaces, place=place)
        ]
    if isinstance(target, ast.Starred):
        return _targets(target.value, value, block, whole=False, replaces=replaces, place=place)
    if isinstance(target, ast.Subscript):
        whole = replaces = False
        while isinstance(target, ast.Subscript):
            target = target.value
    return [(target, Binding(place, value, whole, replaces, block))]
