"""Operators and methods on constants, bounded: what constant propagation may compute."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

TEXT_LIMIT_CHARACTERS = 2_000
LARGEST = 10**18
CONSTANT_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    MemoryError,
)

_BINARY: dict[type[ast.operator], Callable[[Any, Any], object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, holder: item in holder,
    ast.NotIn: lambda item, holder: item not in holder,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], object]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
METHODS = frozenset(
    {"lower", "upper", "strip", "lstrip", "rstrip", "casefold", "split", "startswith", "endswith", "get"}
)


def binary(kind: ast.operator, left: object, right: object) -> object:
    """`left kind right`, where that is a small constant.

    Raises:
        ValueError: the operator or the size of the operands is not for constants.
    """
    texts = isinstance(left, str) or isinstance(right, str)
    if not (_small(left) and _small(right)) or type(kind) not in _BINARY or (texts and not isinstance(kind, ast.Add)):
        raise ValueError("not a small constant")
    return _BINARY[type(kind)](left, right)


def unary(kind: ast.unaryop, value: object) -> object:
    """`kind value`; raises ValueError for other operators than `not`, `-` and `+`."""
    if type(kind) not in _UNARY:
        raise ValueError("not for constants")
    return _UNARY[type(kind)](value)


def compare(kinds: Sequence[ast.cmpop], values: Sequence[object]) -> bool:
    """A chain of comparisons."""
    return all(
        _COMPARE[type(kind)](left, right) for kind, left, right in zip(kinds, values[:-1], values[1:], strict=True)
    )


def method(name: str, values: Sequence[object]) -> object:
    """A method of a constant: `text.lower()`, `text.split(",")`, `table.get(key)`.

    Raises:
        ValueError: this method is not for constants.
    """
    owner, *arguments = values
    if name not in METHODS or not isinstance(owner, (str, dict)) or not _small(owner):
        raise ValueError("not for constants")
    return getattr(owner, name)(*arguments)


def _small(value: object) -> bool:
    """Whether a value is a number or text that may be computed with."""
    if isinstance(value, str):
        return len(value) <= TEXT_LIMIT_CHARACTERS
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST)
