"""Mixtures whose weights are made of the probabilities that they weigh: `sum(w * p ** k * p) / sum(w * p ** k)`.

Each expert's probability of the realized token raises its own weight, and the divisor adds those weights up. A weight
that is known before the token would stand in both sums without it. The result is no distribution: over all tokens it
adds up to more than one wherever the experts disagree. Weights that are changed by such numbers after the mixture, for
the next token, are none of this.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.analysis.index import descend, last_name, place_of
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.program import Module, Program, Scope
from harness.analysis.scoring import is_scoring

_LOOPS = (ast.For, ast.While)
# What an expert is asked for; a row over the vocabulary is asked for nothing.
_TOKEN = re.compile(r"(?:\w+_)?(?:tok|token|target|tgt|sym|symbol|byte|next|y|t)(?:_id)?", re.IGNORECASE)
_POWERS = frozenset({"pow", "power", "float_power"})
_DOTS = frozenset({"dot", "inner", "vdot"})
_RAISED = "a probability of the realized token raises its own weight"
_HOPS = 4


def self_weighted(program: Program) -> Iterator[Proven]:
    """Every such mixture in scoring code."""
    for module in program.modules.values():
        for division in module.index.of(ast.BinOp):
            if not isinstance(division.op, ast.Div):
                continue
            found = _of_sums(division, module) or _of_arrays(division, module)
            if found is not None and is_scoring(module, division, program):
                weight, mixture = found
                first = Step(_RAISED, module.at(weight.lineno), weight, module)
                yield Proven((first, Step("it is mixed with that weight", module.at(mixture.lineno), mixture, module)))


def _of_sums(division: ast.BinOp, module: Module) -> tuple[ast.expr, ast.expr] | None:
    """`above += base * p; below += base` in one loop, with a `base` that is made of a power of `p`."""
    if not isinstance(division.left, ast.Name) or not isinstance(division.right, ast.Name):
        return None
    scope = module.scope_of(division)
    for above in _added(division.left.id, scope):
        loop = _loop(above, module)
        for below in _added(division.right.id, scope) if loop is not None else ():
            if _loop(below, module) is not loop or not isinstance(above.value, ast.BinOp):
                continue
            for weight, share in _factors(above.value):
                if ast.dump(weight) == ast.dump(below.value) and _is_asked(share, scope):
                    power = _power(weight, share, scope)
                    if power is not None:
                        return power, division
    return None


def _of_arrays(division: ast.BinOp, module: Module) -> tuple[ast.expr, ast.expr] | None:
    """`w = m * p ** k; w = w / w.sum(); dot(w, p)`."""
    scope = module.scope_of(division)
    summed = _plain(division.right, scope)
    sums = [each for each in descend(summed) if isinstance(each, ast.Call) and last_name(each.func) == "sum"]
    over = [each.func.value for each in sums if isinstance(each.func, ast.Attribute)]
    if not isinstance(division.left, ast.Name) or not any(ast.dump(each) == ast.dump(division.left) for each in over):
        return None
    statement = module.index.statement_of(division)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    names = {each.id for each in targets if isinstance(each, ast.Name)}
    for call in module.index.calls_of(*_DOTS):
        if module.scope_of(call) is not scope or len(call.args) != 2 or place_of(call) < place_of(division):
            continue
        for weight, share in (call.args, call.args[::-1]):
            if isinstance(weight, ast.Name) and weight.id in names and _is_asked(share, scope):
                power = _power(division.left, share, scope)
                if power is not None:
                    return power, call
    return None


def _added(name: str, scope: Scope) -> Iterator[ast.AugAssign]:
    for binding in scope.bindings.get(name, ()):
        statement = scope.module.index.statement_of(binding.value)
        if isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
            yield statement


def _loop(node: ast.AST, module: Module) -> ast.AST | None:
    return next((each for each in module.index.ancestors(node) if isinstance(each, _LOOPS)), None)


def _factors(node: ast.BinOp) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node.op, ast.Mult):
        yield node.left, node.right
        yield node.right, node.left


def _power(weight: ast.expr, share: ast.expr, scope: Scope) -> ast.expr | None:
    """A power of the share, or the share itself, that is a factor of the weight."""
    wanted = ast.dump(share)
    waiting = [_plain(weight, scope)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            waiting += [node.left, node.right]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and ast.dump(node.left) == wanted:
            return node
        elif isinstance(node, ast.Call) and last_name(node.func) in _POWERS and node.args:
            base = node.args[0] if len(node.args) > 1 else getattr(node.func, "value", node)
            if ast.dump(base) == wanted:
                return node
        elif ast.dump(node) == wanted:
            return node
    return None


def _plain(node: ast.expr, scope: Scope) -> ast.expr:
    """What a name was given, where that is one value."""
    for _ in range(_HOPS):
        bound = list(reaching(node, scope, scope)) if isinstance(node, ast.Name) else []
        if len(bound) != 1 or not bound[0].whole:
            break
        node = bound[0].value
    return node


def _is_asked(share: ast.expr, scope: Scope) -> bool:
    """Whether a number, or each of an array, is what a call gives for a token."""
    if not isinstance(share, ast.Name):
        return False
    for binding in scope.bindings.get(share.id, ()):
        for call in (each for each in descend(binding.value) if isinstance(each, ast.Call)):
            names = [each.id for each in call.args if isinstance(each, ast.Name)]
            if len(names) > 1 and any(_TOKEN.fullmatch(name) for name in names):
                return True
    return False
