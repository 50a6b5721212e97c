"""Probabilities of tokens that are divided evenly among the bytes of the token, and mixed there with others.

exp(lp / n) for each of a token's n bytes multiplies back to the token's own probability. Mixed with the probability of
another model byte by byte it does not: the products of the mixtures over all tokens of the vocabulary do not add up to
one, since the share of each byte was made from the realized token alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.analysis.index import dotted, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.prints import only_reported
from harness.analysis.program import Module, Program, Scope

_REPEATING = frozenset({"repeat", "repeat_interleave"})
# What changes no number: `lengths.astype(np.float64)`.
_CASTS = frozenset({"astype", "float", "double", "to", "numpy", "cpu", "asarray", "array"})
_LOG_PROBABILITY = re.compile(r"(?:^|_)(?:lp|lps|logp|log_p|logprobs?|log_probs?)(?:_|$)", re.IGNORECASE)
_DIVIDED = "its logarithm is divided among its bytes"
MIXED = "a byte's share is mixed with another probability"
_LENGTH = re.compile(r"len|bytes", re.IGNORECASE)


def spreads(program: Program) -> Iterator[Proven]:
    """Every mixture of shares of bytes."""
    for module in program.modules.values():
        for division in module.index.each(ast.BinOp):
            if isinstance(division.op, ast.Div) and _divides_by_bytes(division, module.scope_of(division)):
                mixture = _mixture(division, module)
                if mixture is not None:
                    yield Proven((_step(_DIVIDED, division, module), _step(MIXED, mixture, module)))


def _step(what: str, node: ast.expr, module: Module) -> Step:
    return Step(what, module.at(node.lineno), node, module)


def _divides_by_bytes(division: ast.BinOp, scope: Scope) -> bool:
    """`repeat(lp, n) / repeat(n, n)`, or `lp / len(token)`."""
    left, right = scope.last_given(division.left), scope.last_given(division.right)
    above, below = _repeated(left), _repeated(right)
    if above is not None and below is not None:
        return above[1] == below[1] == below[0] != ""
    named = _LOG_PROBABILITY.search(last_name(division.left)) is not None
    counted = isinstance(right, ast.Call) and last_name(right.func) == "len"
    looked_up = isinstance(right, ast.Subscript) and _LENGTH.search(last_name(right.value)) is not None
    return named and (counted or looked_up)


def _repeated(node: ast.expr) -> tuple[str, str] | None:
    """What is repeated, and how often, by names."""
    if not isinstance(node, ast.Call) or last_name(node.func) not in _REPEATING:
        return None
    given = [*node.args]
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(owner, ast.expr) and last_name(owner) not in {"np", "numpy", "torch"}:
        given = [owner, *given]
    return (_plain(given[0]), _plain(given[1])) if len(given) > 1 else None


def _plain(node: ast.expr) -> str:
    """The name of a value behind casts, or ""."""
    while isinstance(node, ast.Call) and last_name(node.func) in _CASTS:
        method = isinstance(node.func, ast.Attribute) and last_name(node.func.value) not in {"np", "numpy", "torch"}
        inner = node.func.value if method and isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
        if inner is None:
            return ""
        node = inner
    return dotted(node)


def _mixture(division: ast.BinOp, module: Module) -> ast.BinOp | None:
    """A sum of two products in which the exponential of the quotient, or a name for it, is a factor."""
    names = _names_of(division, module)
    powers = {
        call: _names_of(call, module)
        for call in module.index.calls_of("exp", "exp_")
        if any(each is division or last_name(each) in names for argument in call.args for each in ast.walk(argument))
    }
    named = frozenset().union(*powers.values())
    for node in module.index.each(ast.BinOp):
        sides = (node.left, node.right) if isinstance(node.op, ast.Add) else ()
        weighted = [side for side in sides if isinstance(side, ast.BinOp) and isinstance(side.op, ast.Mult)]
        factors = [each for side in weighted for each in ast.walk(side)] if len(weighted) > 1 else []
        shared = any(each in powers or (isinstance(each, ast.Name) and each.id in named) for each in factors)
        if shared and _is_scored(node, module):
            return node
    return None


def _is_scored(mixture: ast.BinOp, module: Module) -> bool:
    """Whether more is done with a mixture than to print it and to make its next value of it."""
    names = _names_of(mixture, module)
    scope = module.scope_of(mixture)
    statement = module.index.statement_of(mixture)
    parts = {dotted(each) for each in ast.walk(mixture) if isinstance(each, (ast.Name, ast.Attribute))}
    if isinstance(statement, ast.Assign) and any(dotted(each) in parts - {""} for each in statement.targets):
        return False  # a running mean
    return not names or not all(only_reported(name, scope, statement) for name in names)


def _names_of(node: ast.expr, module: Module) -> frozenset[str]:
    """The names that the statement of an expression gives its value."""
    statement = module.index.statement_of(node)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))
