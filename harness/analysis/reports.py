"""Where a program prints a score: the call, its text, and what it prints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.index import Function, last_name
from harness.analysis.prints import REPORTERS
from harness.analysis.program import Module, Scope

HOLE = "{}"


@dataclass(frozen=True, slots=True)
class Report:
    """A place where a score of validation tokens is printed, and where it was computed."""

    node: ast.Call
    text: str
    scored: ast.Call | None
    names: tuple[ast.Name, ...]


def printed(call: ast.Call, scope: Scope | None = None) -> tuple[str, list[ast.Name]]:
    """The fixed text and the names that a call prints.

    A value that is put into the text stands as `{}`, or as its text where a scope is given in which it has one only.
    Of a word that begins with one of several texts, all of them, with `|` between.
    """
    text: list[str] = []
    names: list[ast.Name] = []
    stack: list[ast.AST] = list(reversed(call.args))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FormattedValue):
            begins = not text or not text[-1] or text[-1][-1].isspace()
            text.append(_put_in(node.value, scope, begins=begins))
            stack.append(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text.append(node.value)
        elif isinstance(node, ast.Name):
            names.append(node)
        else:
            stack.extend(reversed(list(ast.iter_child_nodes(node))))
    return "".join(text), names


def _put_in(node: ast.expr, scope: Scope | None, *, begins: bool) -> str:
    """The text that a name has, or those that it may have at the beginning of a word."""
    holder = scope.holder(node.id) if scope is not None and isinstance(node, ast.Name) else None
    bound = holder.bindings.get(node.id, []) if holder is not None and isinstance(node, ast.Name) else []
    values = [arm for each in bound for arm in _arms(each.value)]
    texts = dict.fromkeys(label_of(value) for value in values)
    known = bool(texts) and all(texts) and all(each.whole for each in bound)
    return "|".join(texts) if known and (begins or len(texts) == 1) else HOLE


def _arms(node: ast.expr) -> Iterator[ast.expr]:
    """What a choice may give."""
    if isinstance(node, ast.IfExp):
        yield from _arms(node.body)
        yield from _arms(node.orelse)
    else:
        yield node


def label_of(node: ast.expr) -> str:
    """The text that an argument is, or ""."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def wrapped(function: Function, module: Module) -> Iterator[str]:
    """The texts with which a function prints a score that a function computes which it is handed."""
    scope = module.scope(function)
    for call in module.index.own(function.node):
        if isinstance(call, ast.Call) and last_name(call.func) in REPORTERS:
            text, names = printed(call)
            values = [binding.value for name in names for binding in scope.bindings.get(name.id, ())]
            computed = {last_name(value.func) for value in values if isinstance(value, ast.Call)}
            if "bpb" in text.lower() and not computed.isdisjoint(scope.parameters):
                yield text.strip()
