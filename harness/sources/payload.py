"""What the expressions of a packed script's wrapper come to, worked out from the syntax tree.

Statements are taken in order, as Python runs them: a name means what was last bound to it. Understood are literals,
their concatenations and slices, the decoders of `decoders`, files that the wrapper opens or writes, and loops that
write files. Nothing is imported or called on the script's behalf; everything else is unknown, with the reason.
"""

from __future__ import annotations

import ast
import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.sources.decoders import DecodeError
from harness.sources.folder import decode as as_read
from harness.sources.payloadsyntax import is_main_guard, is_named, written_by
from harness.sources.payloadvalues import (
    CONSTANTS,
    OPENERS,
    File,
    Module,
    ReadFile,
    UnknownPayloadError,
    Workshop,
    function,
    method,
)

STEPS_LIMIT = 20_000
LOOP_LIMIT = 200
# What it costs to look at one expression, in characters of the budget.
EVALUATION_CHARACTERS = 64
_RUNNERS = frozenset({"exec", "builtins.exec", "__builtins__.exec", "types.FunctionType"})
_BUILTINS = ("bytes", "bytearray", "str", "open", "exec", "compile", "getattr", "zip", "__import__", "__builtins__")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a name has no value that can be worked out."""

    kind: type[UnknownPayloadError | DecodeError]
    reason: str


# By name: a table of bound methods would hold the wrapper's tree in a circle.
_READERS: Mapping[type[ast.expr], str] = {
    ast.Constant: "_constant",
    ast.Name: "_lookup",
    ast.List: "_collection",
    ast.Tuple: "_collection",
    ast.Dict: "_dict",
    ast.UnaryOp: "_unary",
    ast.BinOp: "_binary",
    ast.Attribute: "_attribute",
    ast.Subscript: "_subscript",
    ast.Call: "_call",
}


class Payload:
    """The statements of one wrapper, what they run, and the files that they write."""

    def __init__(self, body: Sequence[ast.stmt], name: str, read_file: ReadFile) -> None:
        self.workshop = Workshop()
        self._read_file = read_file
        self._names: dict[str, object] = {"__file__": name, **{word: Module(word) for word in _BUILTINS}}
        # What each name is bound to: the step, the expression, and whether it builds on the value before.
        self._bound: dict[str, list[tuple[int, ast.expr | Module, bool]]] = {}
        # What is worked out already: values, and why there is none.
        self._known: dict[tuple[str, int], object] = {}
        self._writes: list[tuple[int, ast.expr, ast.expr]] = []
        # The first writes, by the name of the file that they write, each with its moment and its text.
        self._written: dict[str, list[tuple[int, ast.expr]]] = {}
        self._placed = 0
        self._writing: dict[ast.stmt, bool] = {}
        self._steps: list[ast.Expr] = []
        self._moments: list[int] = []
        self._now = 0
        self._take(body)

    def runs(self) -> Iterator[tuple[ast.Call, Callable[[], str]]]:
        """Each call that runs code, and how to work out the text that it runs."""
        for moment, step in zip(self._moments, self._steps, strict=True):
            call = step.value
            if isinstance(call, ast.Call):
                self._now = moment
                work = self._running(call, moment)
                if work is not None:
                    yield call, work

    def read_file(self, path: str) -> str | bytes | None:
        """A file as the wrapper wrote it, else as the folder ships it; None where there is none."""
        self._now = STEPS_LIMIT + 1
        try:
            return self._contents(File(path))
        except (UnknownPayloadError, DecodeError, RecursionError):
            return None

    def modules(self) -> frozenset[str]:
        """Names of the modules that the wrapper writes."""
        self._now = STEPS_LIMIT + 1
        self._place_writes()
        return frozenset(name.removesuffix(".py") for name in self._written if name.endswith(".py"))

    def _running(self, call: ast.Call, moment: int) -> Callable[[], str] | None:
        node = call.func
        if isinstance(node, ast.Attribute) and node.attr == "exec_module":
            return lambda: self._text(self._at(node.value, moment), run=True)
        if isinstance(node, ast.Name) and node.id == "eval":
            compiled = call.args and isinstance(call.args[0], ast.Call) and is_named(call.args[0].func, "compile")
            return (lambda: self._text(self._at(call.args[0], moment))) if compiled else None
        runner = self._runner(node)
        if runner in _RUNNERS and call.args:
            return lambda: self._text(self._at(call.args[0], moment))
        if runner == "runpy.run_path" and call.args:
            return lambda: self._text(self._at(call.args[0], moment), run=True)
        if runner == "call":
            return lambda: self._text(self._at(call.func, moment))
        return None

    def _runner(self, node: ast.expr) -> str:
        """The dotted name of what a statement calls; "call" for the result of another call, such as a lambda."""
        if isinstance(node, ast.Call) and is_named(node.func, "FunctionType"):
            return "call"
        try:
            value = self._value(node)
        except (UnknownPayloadError, DecodeError, RecursionError):
            return ""
        return value.name if isinstance(value, Module) else ""

    def _at(self, node: ast.expr, moment: int) -> object:
        self._now = moment
        return self._value(node)

    def _text(self, value: object, *, run: bool = False) -> str:
        """The text that is run: a value of its own, or, for `run_path`, the file that it names."""
        if run and isinstance(value, str):
            value = File(value)
        if isinstance(value, File):
            value = self._contents(value)
        if isinstance(value, bytes):
            return as_read(value)
        if isinstance(value, str):
            return value
        raise UnknownPayloadError("the argument of exec is no text that can be worked out without running it")

    def _take(self, body: Sequence[ast.stmt]) -> None:
        """Take statements in order; those under `with`, `try` and the main guard are taken as if outside."""
        for statement in body:
            self._now += 1
            if self._now > STEPS_LIMIT:
                return
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self._import(statement)
            elif isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                self._assign(statement)
            elif isinstance(statement, ast.Expr):
                self._express(statement)
            else:
                self._compound(statement)

    def _compound(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.With):
            for item in statement.items:
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, item.context_expr)
            self._take(statement.body)
        elif isinstance(statement, ast.Try) or (isinstance(statement, ast.If) and is_main_guard(statement.test)):
            self._take(statement.body)
        elif isinstance(statement, (ast.If, ast.For)) and self._writes_files(statement):
            # A file that is written unless it is there already.
            self._take(statement.body) if isinstance(statement, ast.If) else self._loop(statement)

    def _writes_files(self, statement: ast.stmt) -> bool:
        """Whether a file is written within a statement; a loop comes by it again and again."""
        if statement not in self._writing:
            self._writing[statement] = any(written_by(inner) for inner in ast.walk(statement))
        return self._writing[statement]

    def _loop(self, statement: ast.For) -> None:
        """A loop that writes files, once for each item."""
        try:
            items = self._value(statement.iter)
        except (UnknownPayloadError, DecodeError, RecursionError):
            return
        for item in items[:LOOP_LIMIT] if isinstance(items, list) else ():
            self._now += 1
            # The value as it is: written out as an expression, lists that share their items would grow without end.
            self._bind(statement.target, ast.Constant(item))
            self._take(statement.body)

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        for alias in statement.names:
            name = alias.asname or alias.name.partition(".")[0]
            whole = alias.name if alias.asname else name
            if isinstance(statement, ast.ImportFrom):
                name, whole = alias.asname or alias.name, f"{statement.module}.{alias.name}"
            self._bound.setdefault(name, []).append((self._now, Module(whole), False))

    def _assign(self, statement: ast.Assign | ast.AugAssign | ast.AnnAssign) -> None:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                self._bind(target, statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._bind(statement.target, statement.value)
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            sum_ = ast.BinOp(ast.Name(name, ast.Load()), statement.op, statement.value)
            self._bound.setdefault(name, []).append((self._now, sum_, True))

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bound.setdefault(target.id, []).append((self._now, value, False))
        elif isinstance(target, (ast.Tuple, ast.List)):
            for index, inner in enumerate(target.elts):
                self._bind(inner, ast.Subscript(value, ast.Constant(index), ast.Load()))

    def _express(self, statement: ast.Expr) -> None:
        self._moments.append(self._now)
        self._steps.append(statement)
        if (written := written_by(statement)) is not None:
            self._writes.append((self._now, *written))

    def _value(self, node: ast.expr) -> object:
        self.workshop.spend(EVALUATION_CHARACTERS)
        method = _READERS.get(type(node))
        if method is None:
            raise UnknownPayloadError(f"the argument of exec uses {type(node).__name__}, which cannot be worked out")
        return getattr(self, method)(node)

    @staticmethod
    def _constant(node: ast.Constant) -> object:
        return node.value

    def _lookup(self, node: ast.Name) -> object:
        bounds = self._bound.get(node.id, [])
        # Bindings are in the order of their moments.
        first = bisect.bisect_left(bounds, self._now, key=_moment) - 1
        if first < 0:
            if node.id not in self._names:
                raise UnknownPayloadError(f"the argument of exec uses {node.id}, which is not a literal")
            return self._names[node.id]
        # A value that grows by `+=` is built from its first piece on, since Python's stack is not that deep.
        last = first
        while first > 0 and bounds[first][2] and (node.id, bounds[first][0]) not in self._known:
            first -= 1
        value: object = None
        try:
            for moment, bound, _ in bounds[first : last + 1]:
                value = self._bound_value(node.id, moment, bound)
        except (UnknownPayloadError, DecodeError) as error:
            # What builds on it has no value either: the next one who asks need not go back so far.
            self._known[node.id, bounds[last][0]] = _Failure(type(error), str(error))
            raise
        return value

    def _bound_value(self, name: str, moment: int, bound: ast.expr | Module) -> object:
        if (name, moment) not in self._known:
            now = self._now
            try:
                self._known[name, moment] = bound if isinstance(bound, Module) else self._at(bound, moment)
            except (UnknownPayloadError, DecodeError) as error:
                self._known[name, moment] = _Failure(type(error), str(error))
            finally:
                self._now = now
        value = self._known[name, moment]
        if isinstance(value, _Failure):
            raise value.kind(value.reason)
        return value

    def _collection(self, node: ast.List | ast.Tuple) -> list[object]:
        return [self._value(item) for item in node.elts]

    def _dict(self, node: ast.Dict) -> dict[object, object]:
        return {
            key: self._value(value)
            for name, value in zip(node.keys, node.values, strict=True)
            if name is not None and isinstance(key := self._value(name), (str, bytes, int))
        }

    def _unary(self, node: ast.UnaryOp) -> int:
        value = self._value(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(value, int):
            return -value
        raise UnknownPayloadError("the argument of exec computes with something other than literals")

    def _binary(self, node: ast.BinOp) -> object:
        pieces, inner = [node], node.left
        while isinstance(inner, ast.BinOp):
            pieces.append(inner)
            inner = inner.left
        value = self._value(inner)
        for piece in reversed(pieces):
            value = self.workshop.combined(piece.op, value, self._value(piece.right))
        return value

    def _attribute(self, node: ast.Attribute) -> object:
        owner = self._value(node.value)
        if isinstance(owner, Module):
            name = f"{owner.name}.{node.attr}"
            self.workshop.spend(len(name))
            return CONSTANTS.get(name, Module(name))
        if isinstance(owner, File) and node.attr in {"loader", "parent", "name"}:
            return owner.parent() if node.attr == "parent" else owner
        raise UnknownPayloadError(f"the argument of exec uses .{node.attr} of something unknown")

    def _subscript(self, node: ast.Subscript) -> object:
        owner = self._value(node.value)
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            index: object = slice(*(None if end is None else self._value(end) for end in ends))
        else:
            index = self._value(node.slice)
        return self.workshop.item(owner, index)

    def _call(self, node: ast.Call) -> object:
        if isinstance(node.func, ast.Attribute):
            owner = self._value(node.func.value)
            if not isinstance(owner, Module):
                arguments = [self._value(item) for item in node.args]
                return method(self.workshop, self._opened(owner, node.func.attr), node.func.attr, arguments)
        called = self._value(node.func)
        if not isinstance(called, Module):
            raise UnknownPayloadError("the argument of exec calls something unknown")
        # What compile and run_path take beside their text decides nothing about it.
        heads = node.args[:1] if called.name in {"compile", "builtins.compile", "types.FunctionType"} else node.args
        arguments = [self._opened(self._value(item), called.name) for item in heads]
        options = {word.arg: self._opened(self._value(word.value), called.name) for word in node.keywords if word.arg}
        return function(self.workshop, called.name, arguments, options)

    def _opened(self, value: object, use: str) -> object:
        """A file's contents where they are used: read, or handed to a decoder; else the file itself."""
        if use in OPENERS and isinstance(value, str):
            value = File(value)
        reads = use in {"read", "read_text", "read_bytes", "json.load"} or use in OPENERS
        if not reads or not isinstance(value, File):
            return value
        contents = self._contents(value)
        as_text = use in {"read", "read_text", "json.load"} and not value.binary
        return as_read(contents) if as_text and isinstance(contents, bytes) else contents

    def _contents(self, file: File) -> str | bytes:
        """What a file holds: as the wrapper wrote it, else as the folder ships it."""
        self._place_writes()
        writes = self._written.get(file.base, [])
        last = bisect.bisect_left(writes, self._now, key=_moment) - 1
        if last >= 0:
            value = self._then(writes[last][1], writes[last][0])
            if not isinstance(value, (str, bytes)):
                raise UnknownPayloadError(f"it runs the file {file.base[:80]}, whose text cannot be worked out")
            return value
        contents = next((data for path in file.candidates() if (data := self._read_file(path)) is not None), None)
        if contents is None:
            raise UnknownPayloadError(f"it runs the file {file.base[:80]}, which the folder does not hold")
        self.workshop.spend(len(contents))
        self.workshop.layers.append(f"file:{file.base}")
        return contents

    def _place_writes(self) -> None:
        """Work out which files were written until now: once for each write, since any number of reads may ask."""
        while self._placed < len(self._writes) and self._writes[self._placed][0] < self._now:
            moment, place, content = self._writes[self._placed]
            layers = len(self.workshop.layers)
            try:
                target = self._then(place, moment)
            except (UnknownPayloadError, DecodeError, RecursionError):
                target = None
            # How a name is packed is no layer of the code.
            del self.workshop.layers[layers:]
            if isinstance(target, str):
                target = File(target)
            if isinstance(target, File):
                self._written.setdefault(target.base, []).append((moment, content))
            self._placed += 1

    def _then(self, node: ast.expr, moment: int) -> object:
        """The value of an expression at an earlier moment."""
        now = self._now
        try:
            return self._at(node, moment)
        finally:
            self._now = now


def _moment(bound: tuple[int, object, bool] | tuple[int, object]) -> int:
    return bound[0]
