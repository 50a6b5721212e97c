"""Rounds of a loop: how often it runs, whether its counter has a say in the tokens, and whether they move on."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from harness.analysis import arithmetic
from harness.analysis.index import Function, descend, dotted, is_inside, last_name, place_of
from harness.analysis.program import Module, Program, Scope
from harness.analysis.trace import Trace

# What gives the next tokens, and what gives a model other weights.
_MOVING = frozenset(
    {"next", "__next__", "next_batch", "get_batch", "send", "recv", "readline", "load_state_dict", "pop", "popleft"}
)
# What takes a piece by its place.
_TAKING = frozenset({"narrow", "select", "index_select", "take"})
NAMES_LIMIT = 200
_LESS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ORDERING = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


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
        case ast.Compare(left, [kind], [ast.Constant(int(bound))]) if last_name(left) == counter:
            return arithmetic.compare([kind], [value, bound]) if isinstance(kind, _ORDERING) else None
        case ast.Name(name) if name == counter:
            return bool(value)
    return None


def moves_on(loop: ast.For) -> bool:
    """Whether each round takes other tokens, or begins with other weights, without the loop's counter."""
    nodes = list(ast.walk(loop))
    given = [each.slice for each in nodes if isinstance(each, ast.Subscript)]
    given += [
        arg for each in nodes if isinstance(each, ast.Call) and last_name(each.func) in _TAKING for arg in each.args
    ]
    sliced = {name.id for each in given for name in ast.walk(each) if isinstance(name, ast.Name)}
    if any(isinstance(each, ast.AugAssign) and last_name(each.target) in sliced for each in nodes):
        return True
    if not sliced.isdisjoint(_following(nodes)) or any(_takes_the_rest(each) for each in nodes):
        return True
    called = {last_name(each.func) for each in nodes if isinstance(each, ast.Call)}
    return not called.isdisjoint(_MOVING)


def _takes_the_rest(node: ast.AST) -> bool:
    """`head, rest = rest[:n], rest[n:]`: a name is given a part of what it was."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    target, value = node.targets[0], node.value
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        pairs = list(zip(target.elts, value.elts, strict=True))
    return any(
        isinstance(into, ast.Name) and isinstance(part, ast.Subscript) and dotted(part.value) == into.id
        for into, part in pairs
    )


def may_move(trace: Trace, loop: ast.AST, scope: Scope, program: Program) -> str:
    """The name of a call in a loop by which tokens are read that may be others each time, or "".

    A function of the program that changes an object of its own, or a name from around it, each time it is called.
    """
    held = {name for name, _ in trace.data}
    for binding in trace.bindings:
        if not is_inside(binding.place, loop):
            continue
        for call in (each for each in descend(binding.value) if isinstance(each, ast.Call)):
            given = {each.id for part in call.args for each in descend(part) if isinstance(each, ast.Name)}
            if given & held:
                # What is handed the tokens reads no others.
                continue
            for module, function in program.called(call, scope):
                if _remembers(module, function):
                    return last_name(call.func)
    return ""


def _remembers(module: Module, function: Function) -> bool:
    """Whether a function changes what it finds at its next call: an attribute of its object, a name from around it."""
    for node in module.index.own(function.node):
        if isinstance(node, (ast.Nonlocal, ast.Global)):
            return True
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if _is_change(node) else []
        if function.owner and any(isinstance(each, ast.Attribute) for target in targets for each in descend(target)):
            return True
    return False


def _is_change(node: ast.AST) -> TypeGuard[ast.AugAssign | ast.AnnAssign]:
    return isinstance(node, (ast.AugAssign, ast.AnnAssign))


def carried(test: ast.expr, loop: ast.AST, scope: Scope) -> bool:
    """Whether what a condition in a loop looks at may have been changed by an earlier round."""
    if isinstance(test, ast.Compare) and any(isinstance(each, _LESS) for each in test.ops):
        # The lowest of all rounds is kept so, too.
        return False
    heads = {dotted(each).partition(".")[0] for each in descend(test) if isinstance(each, (ast.Name, ast.Attribute))}
    return any(
        is_inside(binding.place, loop)
        and binding.block is not None
        and not (isinstance(binding.block, ast.For) and binding.value is binding.block.iter)
        and (binding.place > place_of(test) or not binding.replaces)
        for head in heads - {""}
        for binding in scope.bindings.get(head, ())
    )


def _following(nodes: Sequence[ast.AST]) -> set[str]:
    """Names whose next value is made of their last: `end = begin + 1024`, then `begin = end`.

    Not those that each round gives a value of its own first: `index = arange(n)`, then `index = index.clamp(max=m)`.
    """
    made: dict[str, list[set[str]]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            loaded = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
            made.setdefault(node.targets[0].id, []).append(loaded)
    if len(made) > NAMES_LIMIT:
        return set()
    once = {name: sources[0] for name, sources in made.items() if len(sources) == 1}
    return {name for name in once if name in _behind(name, once)}


def _behind(name: str, once: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(once.get(name, ()))
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += once.get(each, ())
    return seen


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
