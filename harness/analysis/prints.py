"""The fixed texts that a program prints, as a log can show them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.analysis.index import Index, dotted, last_name
from harness.analysis.program import Program, Scope

REPORTERS = frozenset(
    {"print", "log", "log0", "info", "write", "log_fn", "logger", "print0", "_log", "log_line", "emit"}
)
# One process of several prints: `if rank == 0`, `if master_process`.
_FIRST = re.compile(r"(?:\w+_)?(?:master|main|primary|rank_?0|rank_?zero)(?:_process|_rank|_node)?", re.IGNORECASE)
_RANK = re.compile(r"(?:(?:global|local|ddp|dist|world|my)_)?rank", re.IGNORECASE)
# Where a value goes: `%d`, `{name:.4f}`.
_PLACEHOLDER = re.compile(r"%[-+ #0-9.]*[a-zA-Z]|\{[^{}]*\}|\n")
_SHORTEST = 5
_LETTERS = 3


class Line(NamedTuple):
    """What a log can show of a print.

    Attributes:
        text: its longest fixed piece.
        by: the name of the function that prints: a log that `log0` writes lacks what `print` says.
    """

    text: str
    by: str


def said(call: ast.Call) -> str:
    """The longest fixed piece of what a call prints; "" where none is long enough to be known again."""
    if last_name(call.func) not in REPORTERS or any(_elsewhere(each) for each in call.keywords):
        return ""
    return longest(call.args)


def longest(nodes: Sequence[ast.expr]) -> str:
    """The longest fixed piece of what expressions print; "" where none is long enough to be known again."""
    pieces = [piece.strip() for node in nodes for text in strings_of(node) for piece in _PLACEHOLDER.split(text)]
    best = max(pieces, key=len, default="")
    return best if len(best) >= _SHORTEST and sum(letter.isalpha() for letter in best) >= _LETTERS else ""


def strings_of(node: ast.expr) -> Iterator[str]:
    """The strings that stand in what is printed, whatever the values are."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for each in node.values:
            yield from strings_of(each) if isinstance(each, ast.Constant) else ()
    elif isinstance(node, ast.BinOp):
        yield from (*strings_of(node.left), *strings_of(node.right))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        yield from strings_of(node.func.value)


def spoken(program: Program) -> Iterator[Line]:
    """All prints of a program that a log can show."""
    for module in program.modules.values():
        for call in module.index.calls_of(*REPORTERS):
            text = said(call)
            if text:
                yield Line(text, last_name(call.func))


def strings(program: Program) -> Iterator[str]:
    """Every string that stands in a program."""
    for module in program.modules.values():
        for node in module.index.each(ast.Constant):
            if isinstance(node.value, str):
                yield node.value


def printed_by(statements: Sequence[ast.stmt]) -> Iterator[Line]:
    """What statements print in any case, in one process at least."""
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            text = said(statement.value)
            if text:
                yield Line(text, last_name(statement.value.func))
        elif isinstance(statement, ast.If) and of_a_rank(statement.test):
            yield from printed_by(statement.body)


def only_reported(name: str, scope: Scope, besides: ast.stmt | None = None) -> bool:
    """Whether a function only prints a local name, as no score, or takes its gradient; one statement is left out."""
    if scope.function is None or name in scope.parameters or scope.holder(name) is not scope:
        return False
    index = scope.module.index
    loads = [each for each in index.names.get(name, ()) if scope.module.scope_of(each).holder(name) is scope]
    return all(index.statement_of(each) is besides or _is_told(each, index) for each in loads)


def _is_told(load: ast.AST, index: Index) -> bool:
    """Whether a name stands in a print that tells of no score, or before `.backward`."""
    above = index.parent(load)
    if isinstance(above, ast.Attribute) and above.attr == "backward":
        return True
    for around in index.ancestors(load):
        if isinstance(around, ast.stmt):
            return False
        if isinstance(around, ast.Call) and last_name(around.func) in REPORTERS and not _is_logarithm(around):
            return not any("bpb" in text.lower() for each in around.args for text in strings_of(each))
    return False


def _is_logarithm(call: ast.Call) -> bool:
    return last_name(call.func) == "log" and dotted(call.func).partition(".")[0] in {"math", "np", "numpy", "torch"}


def of_a_rank(test: ast.expr) -> bool:
    """Whether a condition lets the first process through, whatever else holds."""
    if isinstance(test, ast.Compare):
        zero = isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value == 0
        plain = len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq) and zero
        return plain and _RANK.fullmatch(_name(test.left)) is not None
    return _FIRST.fullmatch(_name(test)) is not None


def _name(node: ast.expr) -> str:
    """The last name of a variable, or of a function that is called: `is_main_process()`, `dist.get_rank()`."""
    return last_name(node.func).removeprefix("get_") if isinstance(node, ast.Call) else last_name(node)


def _elsewhere(keyword: ast.keyword) -> bool:
    """Whether a keyword sends the text elsewhere than to a log: `file=`, `console=False`."""
    off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
    return keyword.arg in {None, "file"} or (keyword.arg == "console" and off)
