"""Reads a loop over a vocabulary as it would treat single tokens: a few kinds of statement, on values of our own.

Nothing is run. A statement or call that is not known here makes the answer *unreadable*, never a guess.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.index import dotted, last_name

DEPTH_LIMIT = 40
TEXT_LIMIT = 200


class Unreadable(Exception):  # noqa: N818 - it says what the code is
    """The code does something that is not understood."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a tokenizer, as SentencePiece describes it."""

    piece: str
    control: bool = False
    unused: bool = False
    byte: bool = False


class Opaque:
    """A value that nothing is known of."""


OPAQUE = Opaque()
_QUESTIONS: Mapping[str, Callable[[Token], object]] = {
    "is_control": lambda token: token.control,
    "is_unknown": lambda _: False,
    "is_unused": lambda token: token.unused,
    "is_byte": lambda token: token.byte,
    "id_to_piece": lambda token: token.piece,
}
_METHODS = frozenset({"startswith", "endswith", "encode", "replace", "lstrip", "strip", "rstrip", "removeprefix"})
_CASTS: Mapping[str, Callable[[Any], object]] = {"len": len, "int": int, "bool": bool, "float": float}
_SKIPPING = (ast.Continue, ast.Break, ast.Raise, ast.Pass)


class _Continue(Exception):  # noqa: N818 - control flow
    """`continue`: the token is done with."""


@dataclass
class Reader:
    """One token's way through the loop.

    Attributes:
        names: what the names hold.
        stored: what was stored for the token, by the name of the table.
        functions: the script's own functions, for helpers that the loop calls.
    """

    names: dict[str, object]
    functions: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]
    stored: dict[str, object] = field(default_factory=dict)
    depth: int = 0

    def through(self, body: Sequence[ast.stmt]) -> None:
        """Read the loop's body for one token.

        Raises:
            Unreadable: something in it is not understood.
        """
        try:
            self.block(body)
        except _Continue:
            return

    def block(self, body: Sequence[ast.stmt]) -> None:
        """Read statements in order."""
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise Unreadable
        for statement in body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                self._assign(statement)
            elif isinstance(statement, ast.If):
                self._if(statement)
            elif isinstance(statement, ast.Continue):
                raise _Continue
            elif isinstance(statement, ast.Expr):
                self._expression(statement.value)
            elif not isinstance(statement, ast.Pass):
                raise Unreadable
        self.depth -= 1

    def _if(self, node: ast.If) -> None:
        test = self.value(node.test)
        if isinstance(test, Opaque):
            # Bounds of the table: not taken by an ordinary token.
            if not node.orelse and all(isinstance(each, _SKIPPING) for each in node.body):
                return
            raise Unreadable
        self.block(node.body if test else node.orelse)

    def _expression(self, node: ast.expr) -> None:
        if isinstance(node, ast.Call) and last_name(node.func) == "append" and isinstance(node.func, ast.Attribute):
            self.stored[dotted(node.func.value)] = self.value(node.args[0]) if node.args else OPAQUE

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        value = self.value(node.value) if node.value is not None else OPAQUE
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Subscript):
                self._store(target, value, added=isinstance(node, ast.AugAssign))
            elif isinstance(target, ast.Name):
                old = self.names.get(target.id, OPAQUE)
                self.names[target.id] = _plus(old, value) if isinstance(node, ast.AugAssign) else value
            else:
                raise Unreadable

    def _store(self, target: ast.Subscript, value: object, *, added: bool) -> None:
        if isinstance(self.value(target.slice), Token):
            name = dotted(target.value)
            self.stored[name] = _plus(self.stored.get(name, 0), value) if added else value

    def value(self, node: ast.expr) -> object:
        """What an expression is; OPAQUE where it depends on something unknown.

        Raises:
            Unreadable: it is nested too deep or fails.
        """
        self.depth += 1
        try:
            if self.depth > DEPTH_LIMIT:
                raise Unreadable
            found = self._value(node)
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
            raise Unreadable from error
        finally:
            self.depth -= 1
        if isinstance(found, (str, bytes)) and len(found) > TEXT_LIMIT:
            raise Unreadable
        return found

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.names.get(node.id, OPAQUE)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Subscript):
            return self._item(node)
        return self._operator(node)

    def _operator(self, node: ast.expr) -> object:
        if isinstance(node, ast.IfExp):
            test = self.value(node.test)
            return OPAQUE if isinstance(test, Opaque) else self.value(node.body if test else node.orelse)
        if isinstance(node, ast.BoolOp):
            return self._connective(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            operand = self.value(node.operand)
            return OPAQUE if isinstance(operand, Opaque) else not operand
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            left, right = self.value(node.left), self.value(node.right)
            return _plus(left, right) if isinstance(node.op, ast.Add) else _minus(left, right)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self._compare(node)
        return OPAQUE

    def _connective(self, node: ast.BoolOp) -> object:
        """`or` of which one part is true, `and` of which one is false, or all of which are known."""
        stop = isinstance(node.op, ast.Or)
        values = [self.value(each) for each in node.values]
        known = [bool(each) for each in values if not isinstance(each, Opaque)]
        if stop in known:
            return stop
        return (not stop) if len(known) == len(values) else OPAQUE

    def _compare(self, node: ast.Compare) -> object:
        left, right = self.value(node.left), self.value(node.comparators[0])
        if isinstance(left, (Opaque, Token)) or isinstance(right, (Opaque, Token)):
            return OPAQUE
        if isinstance(node.ops[0], ast.Eq):
            return left == right
        if isinstance(node.ops[0], ast.NotEq):
            return left != right
        return OPAQUE

    def _item(self, node: ast.Subscript) -> object:
        base = self.value(node.value)
        if isinstance(base, ast.ListComp) and isinstance(token := self.value(node.slice), Token):
            target = base.generators[0].target
            inner = Reader({**self.names, dotted(target): token}, self.functions, depth=self.depth)
            return inner.value(base.elt)
        if not isinstance(base, (str, bytes)):
            return OPAQUE
        if isinstance(node.slice, ast.Slice):
            # Anything but numbers raises, which is caught.
            bounds: list[Any] = [self.value(each) if each else None for each in (node.slice.lower, node.slice.upper)]
            return base[slice(*bounds)]
        place = self.value(node.slice)
        return base[place] if isinstance(place, int) else OPAQUE

    def _call(self, node: ast.Call) -> object:
        name = last_name(node.func)
        values = [self.value(each) for each in node.args]
        question = _QUESTIONS.get(name) or _QUESTIONS.get(_snake(name))
        if question is not None and values and isinstance(values[0], Token):
            return question(values[0])
        if isinstance(node.func, ast.Attribute) and name in _METHODS:
            base = self.value(node.func.value)
            return getattr(base, name)(*values[:2]) if isinstance(base, (str, bytes)) else OPAQUE
        if name in _CASTS and len(values) == 1:
            return values[0] if isinstance(values[0], (Opaque, Token)) else _CASTS[name](values[0])
        return self._helper(name, values)

    def _helper(self, name: str, values: Sequence[object]) -> object:
        """A short function of the script's own."""
        function = self.functions.get(name)
        if function is None or not any(isinstance(each, (Token, str, bytes)) for each in values):
            return OPAQUE
        given = dict(zip([each.arg for each in function.args.args], values, strict=False))
        inner = Reader(dict(given), self.functions, depth=self.depth + 1)
        return inner.returned(function.body)

    def returned(self, body: Sequence[ast.stmt]) -> object:
        """What a helper returns; OPAQUE when it falls through.

        Raises:
            Unreadable: something in it is not understood.
        """
        if len(body) > DEPTH_LIMIT or self.depth > DEPTH_LIMIT:
            raise Unreadable
        self.depth += 1
        for statement in body:
            if isinstance(statement, ast.Return):
                return self.value(statement.value) if statement.value is not None else None
            if isinstance(statement, ast.If):
                test = self.value(statement.test)
                if isinstance(test, Opaque):
                    raise Unreadable
                found = self.returned(statement.body if test else statement.orelse)
                if not isinstance(found, Opaque):
                    return found
            else:
                self.block([statement])
        return OPAQUE


def _snake(name: str) -> str:
    """`IdToPiece` as `id_to_piece`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _plus(left: Any, right: Any) -> object:  # noqa: ANN401 - whatever the code adds; what cannot be added raises
    return OPAQUE if isinstance(left, (Opaque, Token)) or isinstance(right, (Opaque, Token)) else left + right


def _minus(left: Any, right: Any) -> object:  # noqa: ANN401 - the same
    return OPAQUE if isinstance(left, (Opaque, Token)) or isinstance(right, (Opaque, Token)) else left - right
