"""Probabilities of tokens of which each byte gets a root, mixed with others byte by byte.

p ** (1 / n) for each of a token's n bytes multiplies back to p: the same share as exp(lp / n) (see `spread`), written
with powers, and often handed from function to function before it is mixed.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.flowwords import LOGARITHMS
from harness.analysis.index import Function, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.program import Module, Program, Scope
from harness.analysis.spread import MIXED

CALLS_DEPTH = 4
_PROBABILITY = re.compile(r"(?:^|_)(?:p|probs?|probability)(?:_|$)", re.IGNORECASE)
_BYTES = re.compile(r"byte|piece", re.IGNORECASE)
_BYTE_COUNT = re.compile(r"byte_?(?:len|count|n\b)|(?:len|num|n|count)_?(?:of_)?bytes", re.IGNORECASE)
_CASTS = frozenset({"int", "float", "max"})
_BOUNDS = frozenset("int float max min clamp clip maximum minimum clamp_min clip_ float64 double".split())  # noqa: SIM905
_SUMS = frozenset({"sum", "nansum", "logsumexp"})
_ROOT = "each byte of the token gets a root of its probability"


@dataclass(frozen=True, slots=True)
class _Holder:
    """A function that holds a root, under some names or as an expression."""

    module: Module
    function: Function
    held: ast.AST
    names: frozenset[str]


def roots(program: Program) -> Iterator[Proven]:
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
                yield Proven((first, Step(MIXED, home.at(mixture.lineno), mixture, home)))


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
    """A sum of two products with the root as a factor, wherever it is handed to, whose logarithm is taken."""
    for holder in _spread(program, first):
        for each in _sums(holder.function.node):
            if not any(_is(factor, holder) for side in (each.left, each.right) for factor in _factors(side)):
                continue
            if _kept_in_itself(each, holder.module):
                continue
            mixed = _Holder(holder.module, holder.function, each, frozenset())
            if any(_in_logarithm(after) for after in _spread(program, mixed)):
                return holder.module, each
    return None


def _spread(program: Program, first: _Holder) -> Iterator[_Holder]:
    """The functions that hold a value, each with its names for it."""
    waiting, seen = [first], set[tuple[ast.AST, ast.AST, frozenset[str]]]()
    for _ in range(CALLS_DEPTH):
        after: list[_Holder] = []
        for each in waiting:
            key = each.function.node, each.held, each.names
            if key in seen:
                continue
            seen.add(key)
            holder = dataclasses.replace(each, names=_carried(each))
            yield holder
            after += [*_returned(program, holder), *_handed(program, holder)]
        waiting = after


def _is(node: ast.expr, holder: _Holder) -> bool:
    """Whether an expression is the value: by name, cast, bounded, or divided by what is no sum over a row."""
    if node is holder.held or (isinstance(node, ast.Name) and node.id in holder.names):
        return True
    if isinstance(node, ast.Call) and last_name(node.func) in _BOUNDS:
        owner = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        return any(_is(each, holder) for each in (*node.args, *owner))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        summed = any(isinstance(each, ast.Call) and last_name(each.func) in _SUMS for each in ast.walk(node.right))
        return not summed and _is(node.left, holder)
    return False


def _carried(holder: _Holder) -> frozenset[str]:
    """Names in the function for the value."""
    assigned = [each for each in ast.walk(holder.function.node) if isinstance(each, ast.Assign)]
    for _ in range(CALLS_DEPTH):
        more = {
            target.id
            for each in assigned
            if _is(each.value, holder)
            for whole in each.targets
            for target in (whole.elts[:1] if isinstance(whole, ast.Tuple) else [whole])
            if isinstance(target, ast.Name)
        }
        if more <= holder.names:
            break
        holder = dataclasses.replace(holder, names=holder.names | more)
    return holder.names


def _sums(tree: ast.AST) -> Iterator[ast.BinOp]:
    """Sums of two products."""
    for each in ast.walk(tree):
        sides = (each.left, each.right) if isinstance(each, ast.BinOp) and isinstance(each.op, ast.Add) else ()
        if isinstance(each, ast.BinOp) and sides and all(_factors(side) for side in sides):
            yield each


def _factors(node: ast.expr) -> tuple[ast.expr, ...]:
    product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    return (node.left, node.right) if isinstance(node, ast.BinOp) and product else ()


def _kept_in_itself(mixture: ast.BinOp, module: Module) -> bool:
    """`mean = 0.9 * mean + 0.1 * root`: a running mean."""
    statement = module.index.statement_of(mixture)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    names = {each.id for each in targets if isinstance(each, ast.Name)}
    return any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(mixture))


def _in_logarithm(holder: _Holder) -> bool:
    calls = [each for each in ast.walk(holder.function.node) if isinstance(each, ast.Call)]
    taken = [
        each
        for call in calls
        if last_name(call.func) in LOGARITHMS
        for each in (*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else ()))
    ]
    return any(_is(each, holder) for each in taken)


def _returned(program: Program, holder: _Holder) -> Iterator[_Holder]:
    """Callers of a function that returns the value, alone or before others."""
    values = [each.value for each in ast.walk(holder.function.node) if isinstance(each, ast.Return)]
    firsts = [
        each.elts[0] if isinstance(each, ast.Tuple) and each.elts else each for each in values if each is not None
    ]
    if not any(_is(each, holder) for each in firsts):
        return
    for module in program.modules.values():
        for call in module.calls(holder.function.node.name):
            function = module.index.function_of(call)
            if function is not None:
                yield _Holder(module, function, call, frozenset())


def _handed(program: Program, holder: _Holder) -> Iterator[_Holder]:
    """Functions of the program that are given the value."""
    for call in (each for each in ast.walk(holder.function.node) if isinstance(each, ast.Call)):
        given: list[int | str] = [at for at, each in enumerate(call.args) if _is(each, holder)]
        given += [each.arg for each in call.keywords if each.arg and _is(each.value, holder)]
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
