"""Experts of a mixture that are no probabilities of the token: an entropy among the losses.

exp(-H) is the same number for every token that may come. In a mixture sum(w_k * exp(-loss_k)) it is given to whichever
token is realized, so that the mixture adds up to more than one by its weight times the size of the vocabulary.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.analysis.index import dotted, last_name
from harness.analysis.labels import Step
from harness.analysis.program import Program, Scope
from harness.analysis.spread import Spread

_JOINING = frozenset({"stack", "cat", "concatenate", "column_stack"})
_FEWEST = 2


def entropies(program: Program) -> Iterator[Spread]:
    """Every entropy that is stacked with losses in a script that mixes losses by `logsumexp`."""
    for module in program.modules.values():
        if not any(_mixes(call) for call in module.index.calls_of("logsumexp")):
            continue
        for call in module.index.calls_of(*_JOINING):
            parts = call.args[0].elts if call.args and isinstance(call.args[0], (ast.List, ast.Tuple)) else []
            scope = module.scope_of(call)
            made = [value for part in parts if (value := _entropy(part, scope)) is not None]
            if made and len(parts) - len(made) >= _FEWEST:
                yield Spread(
                    (
                        Step("an entropy of the model", module.at(made[0].lineno), made[0], module),
                        Step("it stands among the losses that are mixed", module.at(call.lineno), call, module),
                    )
                )


def _mixes(call: ast.Call) -> bool:
    """`(-losses + log_weights).logsumexp(-1)`."""
    given = [call.func.value] if isinstance(call.func, ast.Attribute) and last_name(call.func.value) != "torch" else []
    return any(
        isinstance(each, ast.UnaryOp) and isinstance(each.op, ast.USub)
        for node in (*given, *call.args[:1])
        for each in ast.walk(node)
    )


def _entropy(node: ast.expr, scope: Scope) -> ast.expr | None:
    """The sum of p * log p that a value is, or that its name was given."""
    holder = scope.holder(node.id) if isinstance(node, ast.Name) else None
    bindings = holder.bindings.get(node.id, []) if holder is not None and isinstance(node, ast.Name) else []
    value = bindings[-1].value if bindings and bindings[-1].whole else node
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
