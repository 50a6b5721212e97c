"""Variables that are used after `del` has taken them away, with nothing between that binds them again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from harness.analysis.index import Function, Index, last_name, place_of
from harness.analysis.scopes import binds_unseen, in_comprehension

_BLOCKS = ("body", "orelse", "finalbody")
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_EXITS = frozenset({"exit", "_exit", "quit"})
# What asks whether a name is there.
_ASKING = frozenset({"locals", "globals", "vars", "dir"})


class Gone(NamedTuple):
    """A use of a variable, and the deletion before it."""

    use: ast.Name
    deletion: ast.Name


def gone(index: Index) -> Iterator[Gone]:
    """The first use after each deletion that comes to a name which is no longer there."""
    for statement in index.each(ast.Delete):
        function = index.function_of(statement)
        if function is None and binds_unseen(index):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name) and not _is_shared(index, target.id):
                yield from _after(index, function, target)


def _is_shared(index: Index, name: str) -> bool:
    """Whether a function declares that a name is one of outside: what it calls, or calls it, may bind it again."""
    declared = (*index.each(ast.Global), *index.each(ast.Nonlocal))
    return any(name in getattr(each, "names", ()) for each in declared)


def _after(index: Index, function: Function | None, target: ast.Name) -> Iterator[Gone]:
    later = (each for each in _mentions(index, target.id) if place_of(each) > place_of(target))
    for each in sorted(later, key=place_of):
        if index.function_of(each) is not function or in_comprehension(index, each, index.tree):
            # A function that is made later may run before the deletion; a comprehension or lambda has its own names.
            continue
        if not isinstance(each, ast.Name) or isinstance(each.ctx, ast.Store):
            return
        if _is_reached(index, target, each):
            yield Gone(each, target)
            return


def _mentions(index: Index, name: str) -> Iterator[ast.AST]:
    """Names, and definitions and imports that bind one."""
    yield from (*index.names.get(name, ()), *index.stored.get(name, ()))
    for kind in (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler):
        yield from (each for each in index.each(kind) if getattr(each, "name", None) == name)
    for source in (*index.each(ast.Import), *index.each(ast.ImportFrom)):
        names = source.names if isinstance(source, (ast.Import, ast.ImportFrom)) else ()
        if any((alias.asname or alias.name.partition(".")[0]) == name for alias in names):
            yield source


def _is_reached(index: Index, deletion: ast.AST, use: ast.AST) -> bool:
    """Whether a run that comes by a deletion may come to a use, as far as the conditions of both tell."""
    above = [deletion, *index.ancestors(deletion)]
    mine = [use, *index.ancestors(use)]
    common = next(each for each in above if each in mine)
    ways = above[: above.index(common)], mine[: mine.index(common)]
    first, second = ways[0][-1], ways[1][-1]
    if _field(common, first) != _field(common, second):
        return False
    nodes = (*ways[0], common)
    if any(_leaves(holder, node, second) for node, holder in pairwise(nodes)):
        return False
    tests = [[each.test for each in way if isinstance(each, (ast.If, ast.While, ast.IfExp))] for way in ways]
    names = [{name for test in side for name in _names(test)} for side in tests]
    alike = {ast.unparse(test) for test in tests[0]} >= {ast.unparse(test) for test in tests[1]}
    settled = not any(_is_changed(index, name, deletion, use) for name in names[1])
    return settled and not names[1] & _ASKING and (alike or not names[0] & names[1])


def _is_changed(index: Index, name: str, deletion: ast.AST, use: ast.AST) -> bool:
    """Whether something gives a name of a condition another value between a deletion and a use."""
    stores = (*index.stored.get(name, ()), *index.stored_attributes.get(name, ()))
    return any(place_of(deletion) < place_of(each) < place_of(use) for each in stores)


def _field(holder: ast.AST, node: ast.AST) -> str:
    """In which part of a statement a node stands: what stands in two of them may exclude each other."""
    if not isinstance(holder, (ast.If, ast.Try, ast.Match, ast.IfExp, ast.For, ast.While)):
        return ""
    for name, value in ast.iter_fields(holder):
        if value is node:
            return name
        if isinstance(value, list) and node in value:
            return f"{name} {value.index(node)}" if name in {"handlers", "cases"} else name
    return ""


def _leaves(holder: ast.AST, node: ast.AST, end: ast.AST) -> bool:
    """Whether a block is left between a statement and another, or its end."""
    for name in _BLOCKS:
        block = getattr(holder, name, None)
        if isinstance(block, list) and node in block:
            last = block.index(end) if end in block else len(block)
            return any(_is_left(each) for each in block[block.index(node) + 1 : last])
    return False


def _is_left(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(statement, _LEAVING) or (isinstance(call, ast.Call) and last_name(call.func) in _EXITS)


def _names(test: ast.expr) -> Iterator[str]:
    for node in ast.walk(test):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
