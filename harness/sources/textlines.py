"""Syntax trees looked at only where the text holds certain words: a whole script has 100,000 nodes."""

from __future__ import annotations

import ast
import bisect
from collections.abc import Iterator, Sequence
from typing import TypeVar

NodeT = TypeVar("NodeT", bound=ast.expr | ast.stmt)


def lines_with(text: str, words: Sequence[str]) -> list[int]:
    """Numbers of the lines that hold one of the words; searching the text is far faster than matching its lines."""
    found: set[int] = set()
    for word in words:
        line, offset, place = 1, 0, text.find(word)
        while place >= 0:
            line += text.count("\n", offset, place)
            found.add(line)
            offset, place = place, text.find(word, place + 1)
    return sorted(found)


def touches(node: ast.AST, lines: list[int]) -> bool:
    """Whether a node stands on one of some lines, which are sorted; what has no place of its own may."""
    if not isinstance(node, (ast.expr, ast.stmt)):
        return True
    index = bisect.bisect_left(lines, node.lineno)
    return index < len(lines) and lines[index] <= (node.end_lineno or node.lineno)


def nodes_on(tree: ast.Module, lines: list[int], kinds: tuple[type[NodeT], ...]) -> list[NodeT]:
    """Statements and expressions of some kinds that touch certain lines, in order."""
    stack: list[ast.AST] = [tree]
    found: list[NodeT] = []
    while stack:
        for child in _parts(stack.pop()):
            if touches(child, lines):
                stack.append(child)
                if isinstance(child, kinds):
                    found.append(child)
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """The child nodes that have parts themselves."""
    for value in node.__dict__.values():
        for child in value if value.__class__ is list else (value,):
            if isinstance(child, ast.AST) and child._fields and not isinstance(child, (ast.Name, ast.Constant)):
                yield child
