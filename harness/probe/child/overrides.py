"""Other values for settings that the environment does not reach: attributes of a class and constants of the module."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from .events import channel


# Stand for what a tensor's `numel()` is compared with, and for what a stream's `take()` is asked for.
NUMBERS, TAKING = "numel()", "take()"


class Overrides:
    """Puts values into syntax trees; every line keeps its number.

    Args:
        values: {"class": {CLASS: {NAME: VALUE}}, "module": {NAME: VALUE}, "everywhere": {NAME: [VALUE, LEAST]}}:
            there, numbers from the least one up.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._classes: Mapping[str, Mapping[str, Any]] = values.get("class", {})
        self._module: Mapping[str, Any] = values.get("module", {})
        self._everywhere: Mapping[str, tuple[int, int]] = values.get("everywhere", {})
        self._applied: set[tuple[str, str]] = set()

    def apply(self, tree: ast.Module, path: str) -> None:
        """Change a program's tree in place."""
        for statement in tree.body:
            self._assignments(statement, self._module, "module", path)
        for node in ast.walk(tree):
            if self._everywhere:
                self._given(node, path)
            if isinstance(node, ast.ClassDef) and node.name in self._classes:
                self._class(node, path)

    def report(self) -> None:
        """Say which values found no place."""
        wanted = [("module", name) for name in self._module]
        wanted += [(f"class {owner}", name) for owner, values in self._classes.items() for name in values]
        for where, name in wanted:
            if (where, name) not in self._applied:
                channel().emit("override", where=where, name=name, applied=False)

    def _given(self, node: ast.AST, path: str) -> None:
        """Larger numbers that a name is given by any statement, as a default or in a call."""
        for name, holder, at in _holders(node):
            value, least = self._everywhere.get(name, (0, 0))
            if least and _reaches(_held(holder), least):
                self._replace(holder, value)
                self._note("everywhere", name, value, path, at)

    def _class(self, node: ast.ClassDef, path: str) -> None:
        values, where = self._classes[node.name], f"class {node.name}"
        for statement in node.body:
            self._assignments(statement, values, where, path)
            if isinstance(statement, ast.FunctionDef):
                for inner in ast.walk(statement):
                    self._attributes(inner, values, where, path)
        for name, value in values.items():
            if (where, name) not in self._applied:
                added = ast.Assign([ast.Name(name, ast.Store())], _literal(value))
                node.body.append(ast.fix_missing_locations(ast.copy_location(added, node.body[-1])))
                self._note(where, name, value, path, node.body[-1])

    def _assignments(self, node: ast.AST, values: Mapping[str, Any], where: str, path: str) -> None:
        """Names given by one statement, also below `if` and in tuples."""
        for statement in _statements(node):
            for target, value in _pairs(statement):
                if isinstance(target, ast.Name) and target.id in values:
                    self._replace(value, values[target.id])
                    self._note(where, target.id, values[target.id], path, target)

    def _attributes(self, node: ast.AST, values: Mapping[str, Any], where: str, path: str) -> None:
        """Attributes of `self` given by a method."""
        for target, value in _pairs(node):
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.attr in values:
                self._replace(value, values[target.attr])
                self._note(where, target.attr, values[target.attr], path, target)

    @staticmethod
    def _replace(holder: tuple[Any, str, int], value: Any) -> None:
        owner, field, index = holder
        old = _held(holder)
        new = _located(_literal(value), old or owner)
        if index < 0:
            setattr(owner, field, new)
        else:
            getattr(owner, field)[index] = new

    def _note(self, where: str, name: str, value: Any, path: str, node: ast.AST) -> None:
        self._applied.add((where, name))
        line = getattr(node, "lineno", None)
        channel().emit("override", where=where, name=name, value=value, path=path, line=line, applied=True)


def _held(holder: tuple[Any, str, int]) -> Any:
    owner, field, index = holder
    return getattr(owner, field) if index < 0 else getattr(owner, field)[index]


def _holders(node: ast.AST) -> Iterator[tuple[str, tuple[Any, str, int], ast.AST]]:
    """Names that are given a value here, with the place of that value."""
    if isinstance(node, ast.keyword) and node.arg:
        yield node.arg, (node, "value", -1), node
    elif isinstance(node, ast.arguments):
        plain = [*node.posonlyargs, *node.args]
        for index, argument in enumerate(plain[len(plain) - len(node.defaults) :]):
            yield argument.arg, (node, "defaults", index), argument
        for index, argument in enumerate(node.kwonlyargs):
            yield argument.arg, (node, "kw_defaults", index), argument
    else:
        yield from _asked(node)
    for target, holder in _pairs(node):
        if isinstance(target, (ast.Name, ast.Attribute)):
            yield target.id if isinstance(target, ast.Name) else target.attr, holder, target


def _asked(node: ast.AST) -> Iterator[tuple[str, tuple[Any, str, int], ast.AST]]:
    """What a tensor's number of numbers is compared with, and how many tokens a stream is asked for."""
    if isinstance(node, ast.Compare) and any(map(_counts, (node.left, *node.comparators))):
        yield NUMBERS, (node, "left", -1), node
        yield from ((NUMBERS, (node, "comparators", index), node) for index in range(len(node.comparators)))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "take" and node.args:
        yield TAKING, (node, "args", 0), node


def _counts(node: ast.expr) -> bool:
    """Whether this asks a tensor how many numbers it has."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "numel"


def _reaches(node: Any, least: int) -> bool:
    """Whether this is a number, as it is written or as a power of two, of at least so much."""
    match node:
        case ast.Constant(int(value)):
            return value >= least
        case ast.BinOp(ast.Constant(int(low)), ast.LShift(), ast.Constant(int(high))) if 0 <= high <= 64:
            return low << high >= least
        case ast.BinOp(ast.Constant(int(low)), ast.Pow(), ast.Constant(int(high))) if 0 <= high <= 64:
            return bool(low**high >= least)
    return False


def _literal(value: Any) -> ast.expr:
    return ast.parse(repr(value), mode="eval").body


def _located(node: ast.expr, place: ast.AST) -> ast.expr:
    for part in ast.walk(node):
        ast.copy_location(part, place)
    return node


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and those below its `if`, `try` and `with`."""
    yield node
    if isinstance(node, (ast.If, ast.Try, ast.With)):
        for field in ("body", "orelse", "finalbody"):
            for child in getattr(node, field, ()):
                yield from _statements(child)


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr, tuple[Any, str, int]]]:
    """Targets of an assignment with the place of the value of each: owner, field, index or -1."""
    if isinstance(node, ast.AnnAssign):
        yield node.target, (node, "value", -1)
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if not isinstance(target, (ast.Tuple, ast.List)):
            yield target, (node, "value", -1)
        elif isinstance(node.value, (ast.Tuple, ast.List)) and len(node.value.elts) == len(target.elts):
            yield from ((part, (node.value, "elts", index)) for index, part in enumerate(target.elts))
