"""Layers that give every position a mean over all of them: `x.mean(dim=1, keepdim=True).expand(-1, T, -1)`.

A layer whose input is a batch of sequences, `B, T, C = x.shape`, may reduce it over the positions for a loss of its own
or for a report. Where what the reduction gives is in what the layer returns beside the sequence itself, each position
has seen the later ones. Cumulative sums and means, and reductions over other axes, are none of this.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.analysis.flowwords import LOSSES
from harness.analysis.index import last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.program import Program, Scope
from harness.analysis.shaping import in_training
from harness.analysis.sight import comes_from

FORWARD = "forward"
_REDUCING = frozenset({"mean", "sum", "amax", "amin", "logsumexp", "std", "var"})
_BATCH = re.compile(r"b|bs|bsz|bz|batch|batch_?size|n_?batch", re.IGNORECASE)
_POSITIONS = re.compile(r"t|s|seq|seq_?len|length|time|steps|tgt_len|slen|q_len", re.IGNORECASE)
_AXES = (1, -2)
DEPTH_LIMIT = 6
# What works on each position for itself, and keeps the axes.
_KEEPING = frozenset(
    "float to bfloat16 half type contiguous detach abs square relu sigmoid tanh exp softmax clone type_as".split()  # noqa: SIM905
)
_OWN = re.compile(r"norm|ln|proj|linear|fc|gate|rout|scor|select|importan", re.IGNORECASE)


def pooled(program: Program) -> Iterator[Proven]:
    """Every such reduction that reaches what the layer returns."""
    for module in program.modules.values():
        for function in module.index.functions.values():
            if function.node.name != FORWARD or not is_made(function.owner, program):
                continue
            scope = module.scope(function)
            sequences = set(sequences_of(scope))
            for call in module.index.own(function.node) if sequences else ():
                if (
                    isinstance(call, ast.Call)
                    and _over_positions(call, sequences, scope)
                    and not in_training(call, module)
                ):
                    returned = returned_with(call, scope)
                    if returned is not None:
                        first = Step("a layer reduces all positions of its input", module.at(call.lineno), call, module)
                        second = Step("every position gets that", module.at(returned.lineno), returned, module)
                        yield Proven((first, second))


def sequences_of(scope: Scope) -> Iterator[str]:
    """Parameters that are taken apart as batch, positions and channels: `B, T, C = x.shape`."""
    for node in scope.module.index.own(scope.function.node) if scope.function is not None else ():
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Tuple):
            continue
        names = [each.id if isinstance(each, ast.Name) else "" for each in node.targets[0].elts]
        value = node.value.func if isinstance(node.value, ast.Call) and not node.value.args else node.value
        shaped = isinstance(value, ast.Attribute) and value.attr in {"shape", "size"}
        if shaped and len(names) == 3 and _BATCH.fullmatch(names[0]) and _POSITIONS.fullmatch(names[1]):
            whose = value.value if isinstance(value, ast.Attribute) else value
            if isinstance(whose, ast.Name) and whose.id in scope.parameters:
                yield whose.id


def _over_positions(call: ast.Call, sequences: set[str], scope: Scope) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _REDUCING:
        return False
    library = isinstance(call.func.value, ast.Name) and call.func.value.id == "torch"
    what = call.args[0] if library and call.args else call.func.value
    given = call.args[1:] if library else call.args
    axes = [*given[:1], *(each.value for each in call.keywords if each.arg in {"dim", "axis"})]
    return len(axes) == 1 and integer(axes[0]) in _AXES and is_sequence(what, sequences, scope)


def integer(node: ast.expr) -> int | None:
    """The whole number that an expression writes, also a negative one."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = integer(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


def is_sequence(node: ast.expr, sequences: set[str], scope: Scope, depth: int = 0) -> bool:
    """Whether an expression has the axes of the input, position by position."""
    if isinstance(node, ast.Name):
        bound = scope.bindings.get(node.id, []) if scope.holder(node.id) is scope else []
        if node.id in sequences:
            return not bound
        return (
            len(bound) == 1
            and bound[0].whole
            and depth < DEPTH_LIMIT
            and is_sequence(bound[0].value, sequences, scope, depth + 1)
        )
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and depth < DEPTH_LIMIT:
        own = last_name(node.func.value) == "self" and _OWN.search(node.func.attr) is not None and len(node.args) == 1
        if own:
            return is_sequence(node.args[0], sequences, scope, depth + 1)
        return node.func.attr in _KEEPING and is_sequence(node.func.value, sequences, scope, depth + 1)
    return False


def is_made(owner: str, program: Program) -> bool:
    """Whether an object of a class is made anywhere."""
    return bool(owner) and any(module.loads(owner) for module in program.modules.values())


def _is_loss(node: ast.expr, scope: Scope) -> bool:
    """Whether a value is made of a loss: a number for the whole batch."""
    losses = scope.module.index.calls_of(*LOSSES)
    return any(scope.module.scope_of(loss) is scope and comes_from(node, loss, scope) for loss in losses)


def returned_with(call: ast.Call, scope: Scope) -> ast.Return | None:
    """The return of the layer whose sequence is made of what a reduction gives."""
    for node in scope.module.index.own(scope.function.node) if scope.function is not None else ():
        if isinstance(node, ast.Return) and node.value is not None:
            first = node.value.elts[0] if isinstance(node.value, ast.Tuple) and node.value.elts else node.value
            if comes_from(first, call, scope) and not _is_loss(first, scope):
                return node
    return None
