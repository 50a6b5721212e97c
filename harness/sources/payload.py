"""What the expressions of a packed script's wrapper come to, worked out from the syntax tree.

Statements are taken in order, as Python runs them: a name means what was last bound to it. Understood are literals,
their concatenations and slices, the decoders of `decoders`, files that the wrapper opens or writes, and loops that
write files. Nothing is imported or called on the script's behalf; everything else is unknown, with the reason.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

from harness.sources.decoders import DecodeError
from harness.sources.folder import decode as as_read
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
_RUNNERS = frozenset({"exec", "builtins.exec", "__builtins__.exec", "types.FunctionType"})
_BUILTINS = ("bytes", "bytearray", "str", "open", "exec", "compile", "getattr", "zip", "__import__", "__builtins__")
Step = tuple[ast.stmt, dict[str, object]]


def leading(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements before the first function or class: where a wrapper does its work."""
    result: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            break
        result.append(statement)
    return result


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
        self._known: dict[tuple[str, int], object] = {}
        self._writes: list[tuple[int, ast.expr, ast.expr]] = []
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
        names: set[str] = set()
        for moment, place, _ in self._writes:
            try:
                target = self._at(place, moment)
            except (UnknownPayloadError, DecodeError, RecursionError):
                continue
            path = target.base if isinstance(target, File) else str(target).rpartition("/")[2]
            if path.endswith(".py"):
                names.add(path.removesuffix(".py"))
        return frozenset(names)

    def _running(self, call: ast.Call, moment: int) -> Callable[[], str] | None:
        node = call.func
        if isinstance(node, ast.Attribute) and node.attr == "exec_module":
            return lambda: self._text(self._at(node.value, moment), run=True)
        if isinstance(node, ast.Name) and node.id == "eval":
            compiled = call.args and isinstance(call.args[0], ast.Call) and _is_named(call.args[0].func, "compile")
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
        if isinstance(node, ast.Call) and _is_named(node.func, "FunctionType"):
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
        elif isinstance(statement, ast.Try) or (isinstance(statement, ast.If) and _is_main_guard(statement.test)):
            self._take(statement.body)
        elif isinstance(statement, (ast.If, ast.For)) and any(_written(inner) for inner in ast.walk(statement)):
            # A file that is written unless it is there already.
            self._take(statement.body) if isinstance(statement, ast.If) else self._loop(statement)

    def _loop(self, statement: ast.For) -> None:
        """A loop that writes files, once for each item."""
        try:
            items = self._value(statement.iter)
        except (UnknownPayloadError, RecursionError):
            return
        for item in items[:LOOP_LIMIT] if isinstance(items, list) else ():
            self._now += 1
            self._bind(statement.target, _literal(item))
            self._take(copy.copy(statement.body))

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
        if (written := _written(statement)) is not None:
            self._writes.append((self._now, *written))

    def _value(self, node: ast.expr) -> object:
        method = _READERS.get(type(node))
        if method is None:
            raise UnknownPayloadError(f"the argument of exec uses {type(node).__name__}, which cannot be worked out")
        return getattr(self, method)(node)

    @staticmethod
    def _constant(node: ast.Constant) -> object:
        return node.value

    def _lookup(self, node: ast.Name) -> object:
        before = [bound for bound in self._bound.get(node.id, ()) if bound[0] < self._now]
        if not before:
            if node.id not in self._names:
                raise UnknownPayloadError(f"the argument of exec uses {node.id}, which is not a literal")
            return self._names[node.id]
        # A value that grows by `+=` is built from its first piece on, since Python's stack is not that deep.
        first = len(before) - 1
        while first > 0 and before[first][2] and (node.id, before[first][0]) not in self._known:
            first -= 1
        value: object = None
        for moment, bound, _ in before[first:]:
            value = self._bound_value(node.id, moment, bound)
        return value

    def _bound_value(self, name: str, moment: int, bound: ast.expr | Module) -> object:
        if (name, moment) not in self._known:
            now = self._now
            try:
                self._known[name, moment] = bound if isinstance(bound, Module) else self._at(bound, moment)
            finally:
                self._now = now
        return self._known[name, moment]

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
        now = self._now
        for moment, place, content in reversed(self._writes):
            if moment < now and (written := self._written_to(file, moment, place, content)) is not None:
                return written
        self._now = now
        contents = next((data for path in file.candidates() if (data := self._read_file(path)) is not None), None)
        if contents is None:
            raise UnknownPayloadError(f"it runs the file {file.base[:80]}, which the folder does not hold")
        self.workshop.layers.append(f"file:{file.base}")
        return contents

    def _written_to(self, file: File, moment: int, place: ast.expr, content: ast.expr) -> str | bytes | None:
        layers = list(self.workshop.layers)
        try:
            target = self._at(place, moment)
        except (UnknownPayloadError, RecursionError):
            self.workshop.layers[:] = layers
            return None
        if isinstance(target, str):
            target = File(target)
        if not isinstance(target, File) or target.base != file.base:
            return None
        value = self._at(content, moment)
        if not isinstance(value, (str, bytes)):
            raise UnknownPayloadError(f"it runs the file {file.base[:80]}, whose text cannot be worked out")
        return value


def _is_named(node: ast.expr, name: str) -> bool:
    """Whether an expression ends in a name: `name` or `module.name`."""
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == name


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _written(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """The file and the text of a statement that writes one, such as `f.write(t)` or `p.write_text(t)`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
        return None
    return (call.func.value, call.args[0]) if call.func.attr in {"write", "write_text", "write_bytes"} else None


def _literal(value: object) -> ast.expr:
    """A worked-out value as an expression again."""
    if isinstance(value, list):
        return ast.List([_literal(item) for item in value], ast.Load())
    return ast.Constant(value if isinstance(value, (str, bytes, int)) else None)
