"""Experts of a mixture that are no probabilities of the token: an entropy among the losses.

exp(-H) is the same number for every token that may come. In a mixture sum(w_k * exp(-loss_k)) it is given to whichever
token is realized, so that the mixture adds up to more than one by its weight times the size of the vocabulary.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.analysis.index import dotted, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.program import Module, Program, Scope, argument
from harness.analysis.trace import returned

_JOINING = frozenset({"stack", "cat", "concatenate", "column_stack"})
_FEWEST = 2
# From the mixture to the stack: a name, a parameter, a function that returns it.
_HOPS = 4


def entropies(program: Program) -> Iterator[Proven]:
    """Every entropy that is stacked with losses which `logsumexp` mixes."""
    for module in program.modules.values():
        sums = (call for call in module.index.calls_of("logsumexp") if not _normalizes(call, module))
        mixed = [stack for call in sums for stack in _mixed(call, module, program)]
        for home, call in dict.fromkeys(mixed):
            parts = call.args[0].elts if call.args and isinstance(call.args[0], (ast.List, ast.Tuple)) else []
            scope = home.scope_of(call)
            made = [value for part in parts if (value := _entropy(part, scope)) is not None]
            if made and len(parts) - len(made) >= _FEWEST:
                first = Step("an entropy of the model", home.at(made[0].lineno), made[0], home)
                yield Proven(
                    (first, Step("it stands among the losses that are mixed", home.at(call.lineno), call, home))
                )


def _normalizes(call: ast.Call, module: Module) -> bool:
    """`x - logsumexp(x)`: weights that are made to add up to one, no mixture."""
    above = module.index.parent(call)
    if not isinstance(above, ast.BinOp) or not isinstance(above.op, ast.Sub) or above.right is not call:
        return False
    given = [call.func.value] if isinstance(call.func, ast.Attribute) else []
    return any(ast.dump(each) == ast.dump(above.left) for each in (*given, *call.args[:1]))


def _mixed(call: ast.Call, module: Module, program: Program) -> Iterator[tuple[Module, ast.Call]]:
    """The stacks whose negative `(-losses + log_weights).logsumexp(-1)` takes."""
    given = [call.func.value] if isinstance(call.func, ast.Attribute) and last_name(call.func.value) != "torch" else []
    for node in (*given, *call.args[:1]):
        for each in ast.walk(node):
            if isinstance(each, ast.UnaryOp) and isinstance(each.op, ast.USub):
                yield from _stacks(each.operand, module, program, 0)


def _stacks(node: ast.expr, module: Module, program: Program, depth: int) -> Iterator[tuple[Module, ast.Call]]:
    """The stacks that a value is, through names, parameters and what functions of the program return."""
    value = module.scope_of(node).last_given(node)
    if isinstance(value, ast.Call) and last_name(value.func) in _JOINING:
        yield module, value
    elif depth <= _HOPS:
        for home, behind in _behind(value, module.scope_of(node), program):
            yield from _stacks(behind, home, program, depth + 1)


def _behind(value: ast.expr, scope: Scope, program: Program) -> Iterator[tuple[Module, ast.expr]]:
    """What a call returns, and what is passed for a parameter."""
    if isinstance(value, ast.Call):
        for home, function in program.called(value, scope):
            yield from ((home, back) for back in returned(home.scope(function)))
    elif isinstance(value, ast.Name) and value.id in scope.parameters and scope.function is not None:
        for home, site, filled in program.call_sites(scope.function):
            passed = argument(site, scope.function, value.id, filled)
            yield from ((home, each) for each in (passed,) if each is not None)


def _entropy(node: ast.expr, scope: Scope) -> ast.expr | None:
    """The sum of p * log p that a value is, or that its name was given."""
    value = scope.last_given(node)
    for call in ast.walk(value):
        if isinstance(call, ast.Call) and last_name(call.func) == "sum":
            given = [call.func.value] if isinstance(call.func, ast.Attribute) else []
            if any(_is_weighted(each) for each in (*given, *call.args[:1])):
                return value
    return None


def _is_weighted(node: ast.expr) -> bool:
    """`lp.exp() * lp`, `p * p.log()`: a number times its own exponential or logarithm."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult):
        return False
    return any(
        _changed(one) != "" and _changed(one) == dotted(other)
        for one, other in ((node.left, node.right), (node.right, node.left))
    )


def _changed(node: ast.expr) -> str:
    """The name whose exponential or logarithm a node is."""
    if not isinstance(node, ast.Call) or last_name(node.func) not in {"exp", "log"}:
        return ""
    method = isinstance(node.func, ast.Attribute) and last_name(node.func.value) not in {"torch", "np", "math"}
    inner = node.func.value if method and isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
    return dotted(inner) if inner is not None else ""
