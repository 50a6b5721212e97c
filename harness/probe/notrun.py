"""Which functions of a script the traced run never entered: what a probe proves nothing about."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

NAMES_LIMIT = 60


def functions_not_run(text: str, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Names of functions and methods (`Class.method`) no line of whose body ran, in order.

    Args:
        text: the script, as lines count in it.
        ranges: lines that ran, the end not included.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    ran = {line for start, end in ranges for line in range(start, end)}
    return [name for name, body in _functions(tree.body, "") if not ran & _lines(body)][:NAMES_LIMIT]


def _functions(body: Iterable[ast.stmt], owner: str) -> Iterator[tuple[str, list[ast.stmt]]]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{owner}{node.name}", node.body
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{node.name}.")


def _lines(body: list[ast.stmt]) -> set[int]:
    """Lines of the statements; that of a docstring never runs."""
    return {line for node in body for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
