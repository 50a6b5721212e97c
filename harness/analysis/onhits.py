"""Mixtures that are made only where a table knows the realized token: `if counts.get(y, 0) > 0: p = (1-w)*p + w*q`.

A mixture costs the model's probability its share 1 - w at every token. Where that is paid only if the token that comes
was seen before, all others keep the whole of theirs, and the sum over the vocabulary is above one. A share that is zero
for unseen tokens and mixed in any case is none of this, nor is a test of the context.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.analysis.flowwords import means_target
from harness.analysis.index import descend, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.program import Program, Scope
from harness.analysis.targets import is_scoring


def on_hits(program: Program) -> Iterator[Proven]:
    """Every such condition in scoring code."""
    for module in program.modules.values():
        for node in module.index.of(ast.If):
            if node.orelse or not is_scoring(module.index, node):
                continue
            asked = _asked(node.test, module.scope_of(node))
            cut = next((each for line in node.body for each in descend(line) if _cuts(each)), None)
            if asked is not None and cut is not None:
                first = Step("a table is asked for the token being scored", module.at(asked.lineno), asked, module)
                second = Step("only where it holds the token", module.at(node.lineno), node, module)
                third = Step("the model's share is cut", module.at(getattr(cut, "lineno", None)), cut, module)
                yield Proven((first, second, third))


def _asked(test: ast.expr, scope: Scope) -> ast.expr | None:
    """The look-up at the target whose number a test compares with zero: `count > 0`."""
    match test:
        case ast.Compare(ast.Name() as name, [ast.Gt() | ast.NotEq()], [ast.Constant(0)]):
            holder = scope.holder(name.id)
            bound = list(reaching(name, scope, holder)) if holder is scope else []
            value = bound[0].value if len(bound) == 1 and bound[0].whole else None
            return value if value is not None and _looks_up(value) else None
    return None


def _looks_up(node: ast.expr) -> bool:
    """`counts.get(target, 0)`, `counts[target]`."""
    match node:
        case ast.Call(ast.Attribute(attr="get"), [key, *_]):
            return means_target(last_name(key))
        case ast.Subscript(slice=ast.Name(name)):
            return means_target(name)
    return False


def _cuts(node: ast.AST) -> bool:
    """`1 - w` of a weight that is a name: as a factor, or under a logarithm that is added."""
    return isinstance(node, ast.BinOp) and any(_is_rest(each) for each in _parts(node))


def _parts(node: ast.BinOp) -> Iterator[ast.expr]:
    for side in (node.left, node.right):
        if isinstance(node.op, ast.Mult):
            yield side
        elif isinstance(node.op, ast.Add) and isinstance(side, ast.Call) and last_name(side.func) in {"log", "log1p"}:
            yield from side.args


def _is_rest(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(ast.Constant(1 | 1.0), ast.Sub(), ast.Name()):
            return True
    return False
