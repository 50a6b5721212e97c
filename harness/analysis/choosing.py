"""Layers that choose among all positions of a sequence: `self.router(x).squeeze(-1).topk(k, dim=1)`.

Which positions a layer computes, or which tokens an expert takes, is decided over the whole sequence then, or over the
whole batch: whether an earlier position is among them depends on the later ones. A choice among channels, experts or
tokens of the vocabulary at each position is none of this.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.analysis.index import last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.pooled import DEPTH_LIMIT, FORWARD, integer, is_made, is_sequence, returned_with, sequences_of
from harness.analysis.program import Program, Scope
from harness.analysis.shaping import in_training

# The place of the axis among the arguments, behind the tensor.
_CHOOSING = {"topk": 1, "sort": 0, "argsort": 0, "kthvalue": 1}
_ROWS = frozenset({"reshape", "view", "flatten"})
_TURNED = frozenset({"t", "transpose"})
_LAST = (1, -1)


def chosen(program: Program) -> Iterator[Proven]:
    """Every such choice that reaches what the layer returns."""
    for module in program.modules.values():
        for call in module.index.calls_of(*_CHOOSING):
            scope = module.scope_of(call)
            function = scope.function
            if function is None or function.node.name != FORWARD or not is_made(function.owner, program):
                continue
            sequences = set(sequences_of(scope))
            if not sequences or not _among_positions(call, sequences, scope) or in_training(call, module):
                continue
            returned = returned_with(call, scope)
            if returned is not None:
                first = Step("a layer chooses among all positions", module.at(call.lineno), call, module)
                second = Step("what it returns depends on the choice", module.at(returned.lineno), returned, module)
                yield Proven((first, second))


def _among_positions(call: ast.Call, sequences: set[str], scope: Scope) -> bool:
    """Whether what is chosen from has the positions on the axis that is chosen along."""
    library = isinstance(call.func, ast.Attribute) and last_name(call.func.value) == "torch"
    if not isinstance(call.func, ast.Attribute) or (library and not call.args):
        return False
    what, given = (call.args[0], call.args[1:]) if library else (call.func.value, call.args)
    place = _CHOOSING[call.func.attr]
    axes = [*given[place : place + 1], *(each.value for each in call.keywords if each.arg in {"dim", "axis"})]
    axis = integer(axes[0]) if axes else -1
    what = _plain(what, scope)
    if axis in _LAST and _is_score(what, sequences, scope):
        return True
    turned = _turned(what)
    if turned is not None:
        return axis in _LAST and _has_rows(_plain(turned, scope), sequences, scope)
    return axis == 0 and bool(axes) and _has_rows(what, sequences, scope)


def _plain(node: ast.expr, scope: Scope) -> ast.expr:
    """What a name was given, where that is one value."""
    for _ in range(DEPTH_LIMIT):
        bound = scope.bindings.get(node.id, []) if isinstance(node, ast.Name) else []
        if len(bound) != 1 or not bound[0].whole:
            break
        node = bound[0].value
    return node


def _is_score(node: ast.expr, sequences: set[str], scope: Scope) -> bool:
    """A number for each position: `score(x).squeeze(-1)`, `score(x)[..., 0]`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "squeeze":
        return [integer(each) for each in node.args] == [-1] and is_sequence(node.func.value, sequences, scope)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
        return integer(node.slice.elts[-1]) == 0 and is_sequence(node.value, sequences, scope)
    inner = _inside(node)
    return inner is not None and _is_score(_plain(inner, scope), sequences, scope)


def _turned(node: ast.expr) -> ast.expr | None:
    """The tensor of `x.T`, `x.t()` and `x.transpose(0, 1)`."""
    if isinstance(node, ast.Attribute) and node.attr == "T":
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _TURNED:
        return node.func.value
    return None


def _has_rows(node: ast.expr, sequences: set[str], scope: Scope, depth: int = 0) -> bool:
    """Whether a tensor's rows are the positions of a flattened batch: `router(x.reshape(B * T, C))`."""
    if depth > DEPTH_LIMIT:
        return False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ROWS:
        axes = 2 if node.func.attr != "flatten" else len(node.args)
        return len(node.args) == axes == 2 and is_sequence(node.func.value, sequences, scope)
    inner = _inside(node)
    return inner is not None and _has_rows(_plain(inner, scope), sequences, scope, depth + 1)


def _inside(node: ast.expr) -> ast.expr | None:
    """The tensor that is computed row by row: of `torch.softmax(x, dim=-1)`, `x.float()` and `self.router(x)`."""
    if not isinstance(node, ast.Call):
        return None
    name = last_name(node.func)
    if isinstance(node.func, ast.Attribute) and last_name(node.func.value) == "self" and len(node.args) == 1:
        return node.args[0]
    if name in {"softmax", "sigmoid"} and node.args and last_name(getattr(node.func, "value", node)) in {"torch", "F"}:
        return node.args[0]
    plain = name in {"float", "softmax", "sigmoid", "to", "detach", "type_as"} and isinstance(node.func, ast.Attribute)
    return node.func.value if plain and isinstance(node.func, ast.Attribute) else None
