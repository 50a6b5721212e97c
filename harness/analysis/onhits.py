"""Mixtures that are made only where a table knows the realized token: `if counts.get(y, 0) > 0: p = (1-w)*p + w*q`.

A mixture costs the model's probability its share 1 - w at every token. Where that is paid only if the token that comes
was seen before, all others keep the whole of theirs, and the sum over the vocabulary is above one. A share that is zero
for unseen tokens and mixed in any case is none of this, nor is a test of the context.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from harness.analysis.flowwords import means_target
from harness.analysis.index import descend, last_name
from harness.analysis.labels import Proven, Step
from harness.analysis.origins import reaching
from harness.analysis.program import Program, Scope
from harness.analysis.scoring import is_scoring

_LEAVING = (ast.Return, ast.Continue, ast.Break, ast.Raise)


def on_hits(program: Program) -> Iterator[Proven]:
    """Every such condition in scoring code."""
    for module in program.modules.values():
        for node in module.index.of(ast.If):
            if node.orelse or isinstance(node.body[-1], _LEAVING) or not is_scoring(module, node, program):
                continue
            asked = _asked(node.test, module.scope_of(node))
            cut = _mixed(node, module.scope_of(node)) if asked is not None else None
            if asked is not None and cut is not None:
                first = Step("a table is asked for the token being scored", module.at(asked.lineno), asked, module)
                second = Step("only where it holds the token", module.at(node.lineno), node, module)
                third = Step("the model's share is cut", module.at(cut.lineno), cut, module)
                yield Proven((first, second, third))


def _mixed(node: ast.If, scope: Scope) -> ast.expr | None:
    """The cut share that a body mixes with the number it asked for, under a name that had a value before.

    The number itself has to be in the mixture: a test of how many bytes a token has, or whether it was ever seen, may
    stand before a mixture that every token pays for.
    """
    asked = node.test.left.id if isinstance(node.test, ast.Compare) and isinstance(node.test.left, ast.Name) else ""
    made: dict[str, list[ast.expr]] = {}
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            made.setdefault(line.targets[0].id, []).append(line.value)
    for name in made:
        parts = [part for value in _behind([name], made) for part in descend(value)]
        if _paid_anyway(name, node, asked, scope):
            continue
        before = any(each.place < (node.lineno, node.col_offset) for each in scope.bindings.get(name, ()))
        own = {word: values for word, values in made.items() if word != name}
        # `(1 - escape) * count / total` is the share of those that were seen: the model's has no part in the number.
        cuts = (part for part in parts if isinstance(part, ast.BinOp))
        cut = next((part for part in cuts for rest in _cut(part) if not _holds(rest, asked, own)), None)
        if before and cut is not None and any(isinstance(part, ast.Name) and part.id == asked for part in parts):
            return cut
    return None


def _paid_anyway(name: str, node: ast.If, asked: str, scope: Scope) -> bool:
    """Whether the name is cut where the table holds nothing, too: before the test, or under another one."""
    block = getattr(scope.module.index.parent(node), "body", [])
    beside = [each for each in block if each is not node]
    tested = [each for each in beside if isinstance(each, ast.If) and _mentions(each.test, asked)]
    others = [line for each in tested for line in each.body] + [each for each in beside if isinstance(each, ast.Assign)]
    return any(
        isinstance(line, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in line.targets)
        and any(isinstance(part, ast.BinOp) and any(True for _ in _cut(part)) for part in descend(line.value))
        for line in others
    )


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in descend(node))


def _holds(node: ast.expr, name: str, made: Mapping[str, list[ast.expr]]) -> bool:
    """Whether a name is in an expression, or in what the body made of its names."""
    names = [part.id for part in descend(node) if isinstance(part, ast.Name)]
    values = _behind(names, made)
    return name in names or any(
        isinstance(part, ast.Name) and part.id == name for value in values for part in descend(value)
    )


def _behind(names: list[str], made: Mapping[str, list[ast.expr]]) -> list[ast.expr]:
    """The values of a body that names are made of."""
    seen: set[str] = set()
    found: list[ast.expr] = []
    waiting = list(names)
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        for value in made.get(each, ()):
            found.append(value)
            waiting += [node.id for node in descend(value) if isinstance(node, ast.Name)]
    return found


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


def _cut(node: ast.BinOp) -> Iterator[ast.expr]:
    """What is cut by `1 - w` of a weight that is a name: as a factor, or under a logarithm that is added."""
    for side, other in ((node.left, node.right), (node.right, node.left)):
        if isinstance(node.op, ast.Mult) and _is_rest(side):
            yield other
        elif isinstance(node.op, ast.Add) and isinstance(side, ast.Call) and last_name(side.func) in {"log", "log1p"}:
            yield from (other for each in side.args if _is_rest(each))


def _is_rest(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(ast.Constant(1 | 1.0), ast.Sub(), ast.Name()):
            return True
    return False
