"""Losses that are set to zero where a stored or guessed token turns out to be the right one.

A code that names the token ahead of time pays for the times when it is wrong: what it gives to its guess, it takes from
the other tokens. A loss that is dropped where the guess is right, and kept as it was where it is wrong, is the better
of two codes chosen by the outcome; with stored validation tokens for guesses it is a paid prefix.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.analysis import flowwords as words
from harness.analysis.flow import callees, root
from harness.analysis.index import last_name, place_of
from harness.analysis.labels import Proven, Step
from harness.analysis.program import Module, Program, Scope
from harness.analysis.scoring import is_scoring

_LOSS = re.compile(r"nll|loss|bits|(?:^|_)ce(?:_|$)|cost", re.IGNORECASE)
_NEGATING = frozenset({"logical_not", "bitwise_not"})
_COMPARED = "the tokens that come are compared with others"
_DROPPED = "where they are equal the loss is set to zero, and nothing is added where they are not"


def free_hits(program: Program) -> Iterator[Proven]:
    """Every comparison of target tokens with others that lets the loss of the equal ones go."""
    for module in program.modules.values():
        for node, sides, equal in _comparisons(module):
            scope = module.scope_of(node)
            if scope.function is None or not is_scoring(module, node, program) or not _is_guess(sides, scope):
                continue
            for statement, name in _dropped(node, module, equal=equal):
                if _LOSS.search(name) and _alone(name, statement, scope):
                    first = Step(_COMPARED, module.at(node.lineno), node, module)
                    yield Proven((first, Step(_DROPPED, module.at(statement.lineno), statement, module)))


def _comparisons(module: Module) -> Iterator[tuple[ast.expr, tuple[ast.expr, ast.expr], bool]]:
    """`a == b`, `a != b`, `a.eq(b)`, `torch.ne(a, b)`: the node, its sides, and whether it asks for equality."""
    for node in module.index.each(ast.Compare):
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
            yield node, (node.left, node.comparators[0]), isinstance(node.ops[0], ast.Eq)
    for name in ("eq", "ne"):
        for call in module.calls(name):
            owner = [call.func.value] if isinstance(call.func, ast.Attribute) and len(call.args) == 1 else []
            given = [*owner, *call.args]
            if len(given) == 2:
                yield call, (given[0], given[1]), name == "eq"


def _is_guess(sides: tuple[ast.expr, ast.expr], scope: Scope) -> bool:
    """Whether one side is a piece of the targets and the other a piece of something else: no constant, no padding."""
    pieces = [_piece(side, scope) for side in sides]
    if None in pieces:
        return False
    named = [{last_name(side), piece or ""} for side, piece in zip(sides, pieces, strict=True)]
    return [any(map(words.means_target, names)) for names in named].count(True) == 1


def _piece(node: ast.expr, scope: Scope) -> str | None:
    """The name that a slice is cut out of, through a name and conversions; None for anything else."""
    value = scope.last_given(node)
    for each in (value, *callees(value)):
        if isinstance(each, ast.Subscript):
            indices = each.slice.elts if isinstance(each.slice, ast.Tuple) else [each.slice]
            return _base(each) if any(isinstance(index, ast.Slice) for index in indices) else None
    return None


def _base(node: ast.expr) -> str:
    """The name that slices and methods begin with: `y` of `y.reshape(-1)[:5]`."""
    while isinstance(node, (ast.Subscript, ast.Attribute, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _dropped(node: ast.expr, module: Module, *, equal: bool) -> Iterator[tuple[ast.stmt, str]]:
    """The statements that set something to zero where a comparison holds, each with its name."""
    scope = module.scope_of(node)
    statement = module.index.statement_of(node)
    named = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is node else None
    mask = named.id if isinstance(named, ast.Name) and len(scope.bindings.get(named.id, ())) == 1 else ""
    own = module.index.own(scope.function.node) if scope.function is not None else ()
    for each in own:
        below = module.index.statement_of(each)
        if below is None or (below is not statement and (not mask or place_of(below) < place_of(node))):
            continue
        name = _zeroed(each, _Hit(node, mask, equal))
        if name:
            yield below, name


class _Hit:
    """A mask of hits: the comparison itself, or the name that it was given."""

    def __init__(self, node: ast.expr, name: str, equal: bool) -> None:  # noqa: FBT001 - the three of one thing
        self._node = node
        self._name = name
        self._equal = equal

    def in_(self, node: ast.expr, *, right: bool) -> bool:
        """Whether an expression is true, or one, where the guess is right (or where it is wrong)."""
        for each in (node, *callees(node)):
            wrong = _negated(each)
            if wrong is not None:
                return self.in_(wrong, right=not right)
            if each is self._node or (self._name and isinstance(each, ast.Name) and each.id == self._name):
                return right is self._equal
        return False


def _negated(node: ast.expr) -> ast.expr | None:
    """What `~x`, `1 - x` and `logical_not(x)` negate."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Invert, ast.Not)):
        return node.operand
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and _is_number(node.left, 1):
        return node.right
    if isinstance(node, ast.Call) and last_name(node.func) in _NEGATING and node.args:
        return node.args[0]
    return None


def _zeroed(node: ast.AST, hit: _Hit) -> str:
    """The name of what a statement sets to zero at hits, or ""."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Mult):
        return root(node.target) if hit.in_(node.value, right=False) else ""
    if isinstance(node, ast.Call) and last_name(node.func) == "masked_fill_" and isinstance(node.func, ast.Attribute):
        return root(node.func.value) if _fills(node, hit) else ""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return ""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Subscript) and _is_zero(value):
        return root(target) if hit.in_(target.slice, right=True) else ""
    return root(target) if root(target) and _keeps_misses(value, root(target), hit) else ""


def _keeps_misses(value: ast.expr, name: str, hit: _Hit) -> bool:
    """`x * ~hit`, `x.masked_fill(hit, 0)`, `where(hit, 0, x)` and `where(~hit, x, 0)` of the same x."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        sides = ((value.left, value.right), (value.right, value.left))
        return any(root(one) == name and hit.in_(other, right=False) for one, other in sides)
    if not isinstance(value, ast.Call):
        return False
    if last_name(value.func) == "masked_fill" and isinstance(value.func, ast.Attribute):
        return root(value.func.value) == name and _fills(value, hit)
    if last_name(value.func) != "where" or len(value.args) != 3:
        return False
    test, first, second = value.args
    dropped, kept = (first, second) if hit.in_(test, right=True) else (second, first)
    return (hit.in_(test, right=True) or hit.in_(test, right=False)) and _is_zero(dropped) and root(kept) == name


def _fills(call: ast.Call, hit: _Hit) -> bool:
    return len(call.args) == 2 and hit.in_(call.args[0], right=True) and _is_zero(call.args[1])


def _is_zero(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and last_name(node.func) in {"tensor", "float", "new_tensor"} and node.args:
        node = node.args[0]
    if isinstance(node, ast.Call):
        return last_name(node.func) in {"zeros", "zeros_like", "new_zeros"}
    return _is_number(node, 0)


def _is_number(node: ast.expr, number: int) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value == number


def _alone(name: str, dropped: ast.stmt, scope: Scope) -> bool:
    """Whether the loss enters a sum behind the place, and neither before it nor changed by anything else after it."""
    own = scope.module.index.own(scope.function.node) if scope.function is not None else ()
    if any(isinstance(each, ast.AugAssign) and each is not dropped and root(each.target) == name for each in own):
        return False
    if any(each.line > (dropped.end_lineno or dropped.lineno) for each in scope.bindings.get(name, ())):
        return False
    made, before, after = {name}, False, False
    for each in sorted(own, key=place_of):
        if not isinstance(each, (ast.Assign, ast.AugAssign)) or each is dropped or not _mentions(each.value, made):
            continue
        behind = each.lineno > dropped.lineno
        if isinstance(each, ast.AugAssign):
            summed = words.ACCUMULATOR.search(root(each.target)) is not None
            before, after = before or (summed and not behind), after or (summed and behind)
        elif behind:
            # `batch_sum = nll.sum()` before `total += batch_sum`.
            made |= {target.id for target in each.targets if isinstance(target, ast.Name)}
    return after and not before


def _mentions(node: ast.expr, names: set[str]) -> bool:
    return any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(node))
