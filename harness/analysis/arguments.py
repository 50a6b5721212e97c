"""Calls of the script's own functions and classes that cannot succeed: too many, too few or unknown arguments."""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.attributes import FOREIGN
from harness.analysis.index import FunctionNode, Index, last_name, place_of
from harness.analysis.scopes import Scopes


@dataclass(frozen=True, slots=True)
class BadCall:
    """A call that raises a TypeError.

    Attributes:
        call: the call.
        definition: the function that it calls.
        problem: what is wrong, as a clause.
    """

    call: ast.Call
    definition: FunctionNode
    problem: str


def bad_calls(index: Index, scopes: Scopes) -> list[BadCall]:
    """Calls by plain name of functions and classes that the module defines once and never rebinds."""
    found = []
    for name, (definition, skipped) in _targets(index, scopes):
        for call in index.plain_calls(name):
            unit = scopes.unit_of(call)
            problem = _problem(call, definition, skipped) if not unit or (unit, name) not in scopes.bound else ""
            if problem:
                found.append(BadCall(call, definition, problem))
    return sorted(found, key=lambda bad: place_of(bad.call))


def _targets(index: Index, scopes: Scopes) -> Iterator[tuple[str, tuple[FunctionNode, int]]]:
    """Names that stand for one plain function, and how many of its parameters a caller does not give."""
    rebound = {name for unit, name in scopes.assigned if unit == 0} | _imported(index)
    rebound |= {name for statement in index.each(ast.Global) for name in statement.names}
    defined: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = [
        *index.each(ast.FunctionDef),
        *index.each(ast.AsyncFunctionDef),
        *index.each(ast.ClassDef),
    ]
    times = collections.Counter(each.name for each in defined)
    for each in defined:
        if times[each.name] != 1 or each.name in rebound or each.decorator_list or index.parent(each) is not index.tree:
            continue
        method = _constructor(each) if isinstance(each, ast.ClassDef) else each
        if method is not None:
            yield each.name, (method, int(isinstance(each, ast.ClassDef)))


def _imported(index: Index) -> set[str]:
    aliases = [alias for source in index.each(ast.Import) for alias in source.names]
    aliases += [alias for source in index.each(ast.ImportFrom) for alias in source.names]
    return {alias.asname or alias.name for alias in aliases}


def _constructor(definition: ast.ClassDef) -> ast.FunctionDef | None:
    """The `__init__` that a call of the class runs, where nothing can come between."""
    if (
        definition.decorator_list
        or definition.keywords
        or any(last_name(base) not in FOREIGN for base in definition.bases)
    ):
        return None
    methods = [each for each in definition.body if isinstance(each, ast.FunctionDef)]
    if any(each.name in {"__new__", "__call__"} for each in methods):
        return None
    made = [each for each in methods if each.name == "__init__" and not each.decorator_list]
    return made[0] if len(made) == 1 else None


def _problem(call: ast.Call, definition: FunctionNode, skipped: int) -> str:
    """Why a call does not fit a definition, or ""."""
    if any(isinstance(each, ast.Starred) for each in call.args) or any(each.arg is None for each in call.keywords):
        return ""
    arguments = definition.args
    positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)][skipped:]
    given = [each.arg or "" for each in call.keywords]
    if len(call.args) > len(positional) and arguments.vararg is None:
        return f"{len(call.args)} positional arguments for {len(positional)} parameters"
    accepted = {*positional, *(each.arg for each in arguments.kwonlyargs)}
    unknown = [name for name in given if name not in accepted]
    if unknown and arguments.kwarg is None:
        return f"no parameter {unknown[0]}"
    twice = set(positional[: len(call.args)]) & set(given)
    if twice:
        return f"two values for {min(twice)}"
    return _missing(call, definition, positional, given)


def _missing(call: ast.Call, definition: FunctionNode, positional: list[str], given: list[str]) -> str:
    arguments = definition.args
    required = positional[: len(positional) - len(arguments.defaults)] if arguments.defaults else positional
    missing = [name for name in required[len(call.args) :] if name not in given]
    missing += [
        each.arg
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None and each.arg not in given
    ]
    return f"no value for {', '.join(missing[:4])}" if missing else ""
