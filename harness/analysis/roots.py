"""Probabilities of tokens of which each byte gets a root, mixed with others byte by byte.

p ** (1 / n) for each of a token's n bytes multiplies back to p: the same share as exp(lp / n) (see `spread`), written
with powers, and often handed from function to function before it is mixed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.index import Function, last_name
from harness.analysis.labels import Shown, Step
from harness.analysis.program import Module, Program, Scope

CALLS_DEPTH = 4
_PROBABILITY = re.compile(r"(?:^|_)(?:p|probs?|probability)(?:_|$)", re.IGNORECASE)
_BYTES = re.compile(r"byte|piece", re.IGNORECASE)
_BYTE_COUNT = re.compile(r"byte_?(?:len|count|n\b)|(?:len|num|n|count)_?(?:of_)?bytes", re.IGNORECASE)
_CASTS = frozenset({"int", "float", "max"})
_ROOT = "each byte of the token gets a root of its probability"
_MIXED = "a byte's share is mixed with another probability"


@dataclass(frozen=True, slots=True)
class _Holder:
    """A function that holds a root, under some names or as an expression."""

    module: Module
    function: Function
    held: ast.AST
    names: frozenset[str]


def roots(program: Program) -> Iterator[Shown]:
    """Every mixture of roots."""
    for module in program.modules.values():
        for power in module.index.each(ast.BinOp):
            function = module.index.function_of(power) if isinstance(power.op, ast.Pow) else None
            if function is None or not _is_root(power, module.scope_of(power)):
                continue
            found = _mixture(program, _Holder(module, function, power, frozenset()))
            if found is not None:
                home, mixture = found
                first = Step(_ROOT, module.at(power.lineno), power, module)
                yield Shown((first, Step(_MIXED, home.at(mixture.lineno), mixture, home)))


def _is_root(power: ast.BinOp, scope: Scope) -> bool:
    """`p_token ** (1.0 / n_bytes)`."""
    named = any(isinstance(each, ast.Name) and _PROBABILITY.search(each.id) for each in ast.walk(power.left))
    match power.right:
        case ast.BinOp(ast.Constant(value=1 | 1.0), ast.Div(), count):
            return named and _counts_bytes(count, scope)
    return False


def _counts_bytes(count: ast.expr, scope: Scope) -> bool:
    """Whether a value is how many bytes a token has."""
    for _ in range(CALLS_DEPTH):
        if isinstance(count, ast.Call) and last_name(count.func) in _CASTS and count.args:
            count = next((each for each in count.args if not isinstance(each, ast.Constant)), count.args[0])
        given = scope.last_given(count)
        if given is count:
            break
        count = given
    if isinstance(count, ast.Call) and last_name(count.func) == "len" and count.args:
        return _BYTES.search(last_name(count.args[0])) is not None
    return _BYTE_COUNT.search(last_name(count)) is not None


def _mixture(program: Program, first: _Holder) -> tuple[Module, ast.BinOp] | None:
    """A sum of two products with the root as a factor, wherever it is handed to."""
    waiting, seen = [first], set[tuple[ast.AST, ast.AST, frozenset[str]]]()
    for _ in range(CALLS_DEPTH):
        after: list[_Holder] = []
        for holder in waiting:
            key = holder.function.node, holder.held, holder.names
            if key in seen:
                continue
            seen.add(key)
            names = _carried(holder)
            mixed = next((each for each in _sums(holder.function.node) if _holds(each, holder.held, names)), None)
            if mixed is not None:
                return holder.module, mixed
            after += [*_returned(program, holder, names), *_handed(program, holder, names)]
        waiting = after
    return None


def _carried(holder: _Holder) -> frozenset[str]:
    """Names in the function whose value is made of the root."""
    names = holder.names
    assigned = [each for each in ast.walk(holder.function.node) if isinstance(each, ast.Assign)]
    for _ in range(CALLS_DEPTH):
        more = {
            target.id
            for each in assigned
            if _holds(each.value, holder.held, names)
            for whole in each.targets
            for target in (whole.elts[:1] if isinstance(whole, ast.Tuple) else [whole])
            if isinstance(target, ast.Name)
        }
        if more <= names:
            break
        names |= more
    return names


def _holds(tree: ast.AST, held: ast.AST, names: frozenset[str]) -> bool:
    return any(each is held or (isinstance(each, ast.Name) and each.id in names) for each in ast.walk(tree))


def _sums(tree: ast.AST) -> Iterator[ast.BinOp]:
    """Sums of two products."""
    for each in ast.walk(tree):
        if (
            isinstance(each, ast.BinOp)
            and isinstance(each.op, ast.Add)
            and _product(each.left)
            and _product(each.right)
        ):
            yield each


def _product(node: ast.expr) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)


def _returned(program: Program, holder: _Holder, names: frozenset[str]) -> Iterator[_Holder]:
    """Callers of a function that returns the root."""
    returns = [
        each for each in ast.walk(holder.function.node) if isinstance(each, ast.Return) and each.value is not None
    ]
    if not any(_holds(each, holder.held, names) for each in returns):
        return
    for module in program.modules.values():
        for call in module.calls(holder.function.node.name):
            function = module.index.function_of(call)
            if function is not None:
                yield _Holder(module, function, call, frozenset())


def _handed(program: Program, holder: _Holder, names: frozenset[str]) -> Iterator[_Holder]:
    """Functions of the program that are given the root."""
    for call in (each for each in ast.walk(holder.function.node) if isinstance(each, ast.Call)):
        given: list[int | str] = [at for at, each in enumerate(call.args) if _holds(each, holder.held, names)]
        given += [each.arg for each in call.keywords if each.arg and _holds(each.value, holder.held, names)]
        if not given or last_name(call.func) == holder.function.node.name:
            continue
        for module, function in program.called(call, holder.module.scope_of(call)):
            own = [each for each in function.parameters if each != "self"]
            taken = {
                own[each] if isinstance(each, int) else each
                for each in given
                if not isinstance(each, int) or each < len(own)
            }
            yield _Holder(module, function, call, frozenset(taken))
