"""Forms of expressions that mean something in scoring code, whatever the names in them are."""

from __future__ import annotations

import ast

from harness.analysis import flowwords as words
from harness.analysis.index import descend, last_name
from harness.analysis.labels import Step, Trace

# A loop over so many numbers is one over a vocabulary.
VOCABULARY = 256
_RUNNING = frozenset({"cumsum", "cumsum_"})
_GUESSING = frozenset({"argmax", "topk", "multinomial", "sample", "generate"})


def of_one_table(read: Trace, row: Trace) -> bool:
    """Whether a number and the sum of a row were read from one table: as far as can be seen, a share of it."""
    match (read[-1:], row[-1:]):
        case ((Step(node=ast.Subscript(one)),), (Step(node=ast.Subscript(other)),)):
            return ast.dump(one) == ast.dump(other)
    return False


def counts_vocabulary(node: ast.expr) -> bool:
    """`range(vocab_size)`, `range(1024)`."""
    match node:
        case ast.Call(ast.Name("range"), [ast.Constant(int(count))], []):
            return count >= VOCABULARY
        case ast.Call(ast.Name("range"), [size], []):
            return "vocab" in last_name(size).lower()
    return False


def sets_apart(node: ast.BinOp) -> bool:
    """`low - log(w * exp(low - a) + ...)`: the largest or smallest term of a sum is set apart, none is chosen."""
    inner = [each for each in descend(node.right) if isinstance(each, ast.Call)]
    logs = any(last_name(each.func) in words.LOGARITHMS for each in inner)
    sums = [each for each in inner if last_name(each.func) in {"exp", "exp2"}]
    apart = {ast.dump(each) for each in descend(node.left) if isinstance(each, ast.Name)}
    return logs and any(ast.dump(each) in apart for call in sums for each in descend(call))


def counts(node: ast.expr) -> bool:
    """Whether a loop runs over the places of something, not over its items."""
    return isinstance(node, ast.Call) and last_name(node.func) in {"range", "enumerate"}


def is_none(node: ast.expr) -> bool:
    """The text `none`, as for a reduction."""
    return isinstance(node, ast.Constant) and node.value == "none"


def ends_before(place: ast.expr) -> bool:
    """`[:-1]`, `[:, :-1]`: everything but the last."""
    last = place.elts[-1] if isinstance(place, ast.Tuple) and place.elts else place
    return isinstance(last, ast.Slice) and last.lower is None and isinstance(last.upper, ast.UnaryOp)


def is_shifted(node: ast.Call) -> bool:
    """`F.pad(y[:-1], (1, 0))`, `roll(y, 1)`: each place gets what stood before it."""
    if last_name(node.func) == "roll" and len(node.args) > 1:
        return isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, int) and node.args[1].value > 0
    match node.args:
        case [ast.Subscript(_, places), ast.Tuple([ast.Constant(int(front)), ast.Constant(0)]), *_]:
            return last_name(node.func) == "pad" and front > 0 and ends_before(places)
    return False


def is_guess(node: ast.expr) -> bool:
    """Whether a value is what a model holds likely, not what came: `logits.argmax(-1)`."""
    return any(isinstance(each, ast.Call) and last_name(each.func) in _GUESSING for each in descend(node))


def leaves_itself_out(node: ast.BinOp, left: ast.expr, right: ast.expr) -> bool:
    """`x.cumsum(1) - x`, both times one factor too: at each place the sum of those before it.

    Args:
        node: the difference.
        left: what its left side is, names followed.
        right: the same of the right.
    """
    if not isinstance(node.op, ast.Sub):
        return False
    if isinstance(left, ast.BinOp) and isinstance(right, ast.BinOp) and type(left.op) is type(right.op) is ast.Mult:
        sides = [(left.left, left.right), (left.right, left.left)]
        others = [(right.left, right.right), (right.right, right.left)]
        pairs = [(one, other) for factor, one in sides for same, other in others if ast.dump(factor) == ast.dump(same)]
        return any(leaves_itself_out(node, one, other) for one, other in pairs)
    if not isinstance(left, ast.Call) or last_name(left.func) not in _RUNNING:
        return False
    summed = [left.func.value] if isinstance(left.func, ast.Attribute) else []
    return any(ast.dump(each) == ast.dump(right) for each in (*summed, *left.args[:1]))
