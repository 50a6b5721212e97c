"""Mixtures of two probabilities of the realized token whose weight was computed from one of them.

(1 - w) * p + w * q is a distribution over the vocabulary when w is the same number for every token that may come. A w
that is a function of p or q at the realized token is another number for each, and the mixtures add up to something
else than one. Weights that come from the context, an entropy or a count of it, are none of this.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.analysis.bindings import Binding
from harness.analysis.flowwords import ALONG, LOGARITHMS, LOSSES, means_target
from harness.analysis.index import descend, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.program import Module, Program, Scope
from harness.analysis.scoring import is_scoring

# What computes each number from the number at its own place: no sum, no shift.
_POINTWISE = frozenset(
    """
    abs astype asarray clamp clamp_ clamp_max clamp_min clip clone contiguous detach double exp expm1 float item log
    log1p log2 max maximum min minimum neg pow reshape sigmoid sqrt square squeeze tanh to unsqueeze view where
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
_LIBRARIES = frozenset({"torch", "np", "numpy", "math", "F"})
_PROBABILITIES = re.compile(r"prob|softmax|dist|log_?p(?![a-z])", re.IGNORECASE)
_NODES_LIMIT = 200


@dataclass(slots=True)
class _Made:
    """What a number is made of, place by place.

    Attributes:
        bindings: the values of the names on the way.
        taken: where it is taken at the target: out of a row, or as a loss of each token.
        asked: calls that are given the target.
        other: what does not work place by place: sums, shifts, whatever is not known.
    """

    bindings: set[Binding] = field(default_factory=set)
    taken: list[ast.expr] = field(default_factory=list)
    asked: list[ast.expr] = field(default_factory=list)
    other: list[ast.expr] = field(default_factory=list)


def weighted(program: Program) -> Iterator[Proven]:
    """Every such mixture in scoring code that a logarithm is taken of."""
    for module in program.modules.values():
        for node in module.index.of(ast.BinOp):
            for weight, one, other in _mixtures(node):
                if not is_scoring(module, node, program):
                    continue
                scope = module.scope_of(node)
                source = _source(weight, one, other, scope)
                if source is not None and _in_logarithm(node, scope):
                    first = Step("a probability of the realized token", module.at(source.lineno), source, module)
                    second = Step("the weight that it gives is mixed with", module.at(node.lineno), node, module)
                    yield Proven((first, second))


def _mixtures(node: ast.BinOp) -> Iterator[tuple[ast.expr, ast.expr, ast.expr]]:
    """Weight and both parts of `(1 - w) * p + w * q`."""
    if not isinstance(node.op, ast.Add):
        return
    for left, right in ((node.left, node.right), (node.right, node.left)):
        for rest, one in _factors(left):
            if not isinstance(rest, ast.BinOp) or not isinstance(rest.op, ast.Sub) or not _is_one(rest.left):
                continue
            for weight, other in _factors(right):
                if ast.dump(weight) == ast.dump(rest.right):
                    yield weight, one, other


def _factors(node: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield node.left, node.right
        yield node.right, node.left


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def _source(weight: ast.expr, one: ast.expr, other: ast.expr, scope: Scope) -> ast.expr | None:
    """The number at the target that the weight is made of, when that is what it is mixed with."""
    made = _made(weight, scope)
    parts = [_made(one, scope), _made(other, scope)]
    # One part that is a number of each token makes the other one, which is added to it, one as well.
    if not any(part.taken for part in parts):
        return None
    # `loss.cumsum(0) - loss` is a sum of earlier ones: what also goes into something else may cancel there.
    elsewhere = _reached((each for node in made.other for each in descend(node) if isinstance(each, ast.Name)), scope)
    cancelled = set(elsewhere)
    for part in parts:
        for shared in sorted(part.bindings & made.bindings - cancelled, key=lambda each: each.place):
            behind = _made(shared.value, scope)
            if behind.taken or behind.asked:
                return (*behind.taken, *behind.asked)[0]
    return None


def _made(node: ast.expr, scope: Scope) -> _Made:
    """What an expression is made of, through names that hold one value."""
    found = _Made()
    waiting = [node]
    for _ in range(_NODES_LIMIT):
        if not waiting:
            break
        each = waiting.pop()
        if _takes(each):
            found.taken.append(each)
        elif isinstance(each, ast.Call) and not _pointwise(each):
            (found.asked if _mentions_target(each.args) else found.other).append(each)
        elif isinstance(each, ast.Name):
            waiting += _behind(each, scope, found)
        elif isinstance(each, ast.Subscript) and isinstance(each.slice, ast.Name):
            waiting.append(each.value)
        elif isinstance(each, ast.Subscript) or (isinstance(each, ast.BinOp) and isinstance(each.op, ast.MatMult)):
            found.other.append(each)
        else:
            waiting += _operands(each)
    return found


def _behind(node: ast.Name, scope: Scope, found: _Made) -> list[ast.expr]:
    holder = scope.holder(node.id)
    bindings = list(reaching(node, scope, holder)) if holder is scope else []
    if len(bindings) != 1 or not bindings[0].whole:
        return []
    found.bindings.add(bindings[0])
    return [bindings[0].value]


def _operands(node: ast.expr) -> list[ast.expr]:
    """What an operator, a comparison, a choice or a call that works place by place is given."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.IfExp):
        return [node.test, node.body, node.orelse]
    if isinstance(node, ast.Call):
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        return [*node.args, *([owner] if owner is not None and last_name(owner) not in _LIBRARIES else [])]
    return []


def _pointwise(node: ast.Call) -> bool:
    """Whether a call works place by place: a maximum along a row does not."""
    return last_name(node.func) in _POINTWISE and not any(each.arg in {"dim", "axis"} for each in node.keywords)


def _takes(node: ast.expr) -> bool:
    """`gather(1, y)`, `p[rows, y]`, `probs[y]` and a loss of each token."""
    if isinstance(node, ast.Call):
        name = last_name(node.func)
        plain = any(each.arg == "reduction" and _is_none(each.value) for each in node.keywords)
        return (name in LOSSES and plain) or (name in ALONG and _mentions_target(node.args))
    if not isinstance(node, ast.Subscript) or isinstance(node.slice, ast.Slice):
        return False
    places = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    named = len(places) > 1 or _PROBABILITIES.search(last_name(node.value)) is not None
    return named and not isinstance(places[-1], ast.Slice) and _mentions_target(places[-1:])


def _mentions_target(nodes: Iterable[ast.expr]) -> bool:
    names = (each for node in nodes for each in descend(node) if isinstance(each, (ast.Name, ast.Attribute)))
    return any(means_target(last_name(each)) for each in names)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == "none"


def _in_logarithm(node: ast.BinOp, scope: Scope) -> bool:
    """Whether a logarithm of the mixture, or of the name that it is given, is taken in its function."""
    module: Module = scope.module
    for call in module.index.calls_of(*LOGARITHMS):
        if module.scope_of(call) is not scope:
            continue
        if any(each is node for each in descend(call)):
            return True
        given = [*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
        if any(binding.value is node or node in descend(binding.value) for binding in _reached(given, scope)):
            return True
    return False


def _reached(nodes: Iterable[ast.expr], scope: Scope) -> Iterator[Binding]:
    for node in nodes:
        yield from _made(node, scope).bindings
