"""Rounds of a loop: how often it runs, whether its counter has a say in the tokens, and whether they move on."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence

from harness.analysis.index import last_name
from harness.analysis.program import Scope
from harness.analysis.trace import Trace

# What gives the next tokens, and what gives a model other weights.
_MOVING = frozenset({"next", "next_batch", "get_batch", "load_state_dict"})
_COMPARES: Mapping[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def count_of(loop: ast.For) -> ast.expr | None:
    """How often `for x in range(n)` runs, or `range(1, n)`; None for other loops."""
    match loop.iter:
        case ast.Call(ast.Name("range"), [count], []):
            return count
        case ast.Call(ast.Name("range"), [ast.Constant(int()) as start, end], []):
            return ast.copy_location(ast.BinOp(end, ast.Sub(), start), end)
    return None


def start_of(loop: ast.For) -> int:
    """What the counter of `range(1, n)` begins with."""
    match loop.iter:
        case ast.Call(ast.Name("range"), [ast.Constant(int(start)), _], []):
            return start
    return 0


def holds(test: ast.expr, counter: str, value: int) -> bool | None:
    """Whether a test of the counter alone holds for a value of it; None where it is no such test."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = holds(test.operand, counter, value)
        return None if inner is None else not inner
    match test:
        case ast.Compare(left, [compared], [ast.Constant(int(bound))]) if last_name(left) == counter:
            compare = _COMPARES.get(type(compared))
            return compare(value, bound) if compare is not None else None
        case ast.Name(name) if name == counter:
            return bool(value)
    return None


def moves_on(loop: ast.For) -> bool:
    """Whether each round takes other tokens, or begins with other weights, without the loop's counter."""
    nodes = list(ast.walk(loop))
    sliced = {
        name.id
        for each in nodes
        if isinstance(each, ast.Subscript)
        for name in ast.walk(each.slice)
        if isinstance(name, ast.Name)
    }
    if any(isinstance(each, ast.AugAssign) and last_name(each.target) in sliced for each in nodes):
        return True
    if any(_follows(name, nodes) for name in sliced):
        return True
    called = {last_name(each.func) for each in nodes if isinstance(each, ast.Call)}
    return not called.isdisjoint(_MOVING)


def _follows(name: str, nodes: Sequence[ast.AST]) -> bool:
    """Whether a name's next value is made of its last: `end = begin + 1024`, then `begin = end`."""
    made: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            loaded = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
            made.setdefault(node.targets[0].id, set()).update(loaded)
    seen: set[str] = set()
    waiting = list(made.get(name, ()))
    while waiting:
        each = waiting.pop()
        if each == name:
            return True
        if each not in seen:
            seen.add(each)
            waiting += made.get(each, ())
    return False


def selects(counter: str, trace: Trace, scope: Scope) -> bool:
    """Whether a loop's counter has a say in which tokens are taken, directly or through other names."""
    seen = set(trace.names)
    values: list[ast.expr] = [binding.value for binding in trace.bindings]
    for value in values:
        for each in ast.walk(value):
            if isinstance(each, ast.Name) and each.id not in seen:
                seen.add(each.id)
                values.extend(binding.value for binding in scope.bindings.get(each.id, ()))
    return counter in seen
