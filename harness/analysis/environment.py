"""The names under which a script reads its environment: `os.environ`, `os.getenv`, and whatever stands for them."""

from __future__ import annotations

import ast
import re

from harness.analysis.index import dotted
from harness.analysis.program import Program, Scope, argument

# Set by the launcher, so a default in the script says nothing.
LAUNCHER_KEYS = frozenset(
    "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR MASTER_PORT NODE_RANK".split()  # noqa: SIM905
)
ALIASES_LIMIT = 4
HOPS_LIMIT = 6
SITES_LIMIT = 12
_ENVIRONMENT = frozenset({"os.environ", "environ"})
_GETTERS = frozenset({"os.environ.get", "environ.get", "os.getenv", "getenv", "os.environ.setdefault"})
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")


def is_environment(node: ast.expr, scope: Scope, program: Program, hops: int = 0) -> bool:
    """Whether an expression is the environment: itself, a copy of it, or a parameter that every call passes it for."""
    if isinstance(node, (ast.Name, ast.Attribute)) and canonical(node, scope) in _ENVIRONMENT:
        return True
    if hops > HOPS_LIMIT:
        return False
    match node:
        case ast.Call(ast.Name("dict"), [inner], []) | ast.Call(ast.Attribute(inner, "copy"), [], []):
            return is_environment(inner, scope, program, hops + 1)
        case ast.IfExp(_, one, other) | ast.BoolOp(ast.Or(), [one, other]):
            return any(is_environment(each, scope, program, hops + 1) for each in (one, other))
        case ast.Name(name):
            return _holds_environment(name, scope, program, hops)
    return False


def _holds_environment(name: str, scope: Scope, program: Program, hops: int) -> bool:
    """The same of a name, by its one value or by what calls pass for it."""
    holder = scope.holder(name)
    if holder is None:
        return False
    bindings = holder.bindings.get(name, [])
    function = holder.function
    if name not in holder.parameters or function is None:
        plain = len(bindings) == 1 and bindings[0].whole
        return plain and is_environment(bindings[0].value, holder, program, hops + 1)
    sites = program.call_sites(function)[:SITES_LIMIT] if not bindings else ()
    passed = [(argument(call, function, name, filled), module.scope_of(call)) for module, call, filled in sites]
    given = [(value, outer) for value, outer in passed if value is not None]
    return bool(given) and all(is_environment(value, outer, program, hops + 1) for value, outer in given)


def is_getter(node: ast.expr, scope: Scope, program: Program) -> bool:
    """Whether an expression is a function that reads a variable of the environment, given its name."""
    if isinstance(node, (ast.Name, ast.Attribute)) and canonical(node, scope) in _GETTERS:
        return True
    return isinstance(node, ast.Attribute) and node.attr == "get" and is_environment(node.value, scope, program)


def canonical(node: ast.expr, scope: Scope) -> str:
    """The dotted name of an expression with imported names and plain aliases replaced by what they stand for.

    After `_E = os.environ.get`, `_E` is `os.environ.get`; after `from os import environ as e`, `e.get` is.
    """
    name = dotted(node)
    for _ in range(ALIASES_LIMIT):
        root, dot, rest = name.partition(".")
        holder = scope.holder(root)
        if holder is None:
            return scope.module.imports.get(root, root) + dot + rest
        bindings = holder.bindings.get(root, [])
        if len(bindings) != 1 or not bindings[0].whole or root in holder.parameters:
            return name
        other = dotted(bindings[0].value)
        if not other or other.partition(".")[0] == root:
            return name
        name, scope = other + dot + rest, holder
    return name


def named_variable(node: ast.Call) -> str:
    """The name of an environment variable that a call is given first, or ""."""
    first = node.args[0] if node.args else None
    text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return text if _VARIABLE.fullmatch(text) else ""
