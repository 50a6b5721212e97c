"""The conditions under which a statement runs, read from the statements around it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.index import Index

# No lambda: it is only made where the conditions around it hold.
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# A run that ended well got past every `raise`.
_LEAVING = (ast.Return, ast.Continue, ast.Break)
_BLOCKS = ("body", "orelse", "finalbody", "handlers")


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on the way to a node.

    Attributes:
        test: the condition.
        wanted: the truth that it must have for the node to run.
        leaves: True for an earlier `if test: return`, which the run has to pass by.
        repeats: True for an `in` of a loop, whose test is the thing iterated over: the node runs if that is not empty.
    """

    test: ast.expr
    wanted: bool
    leaves: bool = False
    repeats: bool = False


def guards(index: Index, node: ast.AST) -> Iterator[Guard]:
    """The conditions between a node and the function or module that holds it, innermost first."""
    below = node
    for above in index.ancestors(node):
        yield from _around(above, below)
        if isinstance(below, ast.stmt):
            yield from _passed(above, below)
        if isinstance(above, _FUNCTIONS):
            return
        below = above


def _around(above: ast.AST, below: ast.AST) -> Iterator[Guard]:
    """The condition that a node sets for the child in which we are."""
    if isinstance(above, (ast.If, ast.IfExp)) and below is not above.test:
        body = above.body if isinstance(above.body, list) else [above.body]
        yield Guard(above.test, any(below is each for each in body))
    elif isinstance(above, ast.While) and below is not above.test and below not in above.orelse:
        yield Guard(above.test, wanted=True)
    elif isinstance(above, (ast.For, ast.AsyncFor)) and below in above.body:
        yield Guard(above.iter, wanted=True, repeats=True)
    elif isinstance(above, ast.Match) and below is not above.subject:
        yield from _matched(above, below)
    elif isinstance(above, ast.BoolOp):
        for each in above.values[: above.values.index(below)] if below in above.values else ():
            yield Guard(each, isinstance(above.op, ast.And))


def _matched(above: ast.Match, below: ast.AST) -> Iterator[Guard]:
    """The `case` in which we are fits and those above it do not, as far as they compare with values."""
    for case in above.cases:
        test = _equal(above.subject, case.pattern)
        if case is below:
            if test is not None:
                yield Guard(test, wanted=True)
            if case.guard is not None:
                yield Guard(case.guard, wanted=True)
            return
        if test is not None and case.guard is None:
            yield Guard(test, wanted=False)


def _equal(subject: ast.expr, pattern: ast.pattern) -> ast.expr | None:
    """`subject == value`, or `in` several of them; None where a pattern is none of values alone."""
    parts = pattern.patterns if isinstance(pattern, ast.MatchOr) else [pattern]
    values = [each.value for each in parts if isinstance(each, ast.MatchValue)]
    values += [
        ast.copy_location(ast.Constant(each.value), each) for each in parts if isinstance(each, ast.MatchSingleton)
    ]
    if len(values) < len(parts):
        return None
    test = ast.Compare(subject, [ast.Eq()], values)
    if len(values) > 1:
        test = ast.Compare(subject, [ast.In()], [ast.copy_location(ast.Tuple(values, ast.Load()), pattern)])
    return ast.copy_location(test, pattern)


def _passed(above: ast.AST, below: ast.stmt) -> Iterator[Guard]:
    """Earlier statements of the same block that leave it under a condition."""
    for name in _BLOCKS:
        block: Sequence[ast.AST] = getattr(above, name, None) or ()
        if isinstance(block, list) and below in block:
            for statement in block[: block.index(below)]:
                if isinstance(statement, ast.If):
                    yield from _leaving(statement)
                elif isinstance(statement, _LEAVING):
                    never = ast.copy_location(ast.Constant(value=False), statement)
                    yield Guard(never, wanted=True, leaves=True)
            return


def _leaving(statement: ast.If) -> Iterator[Guard]:
    """`if test: return` must be false to get past; `if test: ... else: return` true."""
    if statement.body and isinstance(statement.body[-1], _LEAVING):
        yield Guard(statement.test, wanted=False, leaves=True)
    elif statement.orelse and isinstance(statement.orelse[-1], _LEAVING):
        yield Guard(statement.test, wanted=True, leaves=True)


def arms(index: Index, node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """The `if`s around a node, each with the name of the arm that it stands in."""
    below = node
    for above in index.ancestors(node):
        if isinstance(above, ast.If) and below is not above.test:
            yield above, "body" if any(below is each for each in above.body) else "orelse"
        below = above
