"""Packed scripts, unpacked without running them.

Counted code is often shipped compressed: `exec(lzma.decompress(base64.b85decode("...")))`, nested, or a stub that
reads another file. The payload of such an `exec` is worked out from the syntax tree: literals, names bound to
literals, and the decoders of `decoders`. Nothing is imported or called on the script's behalf.
"""

from __future__ import annotations

import ast
import lzma
import sys
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.sources.decoders import DecodeError, decode
from harness.sources.fstrings import FSTRINGS_SINCE, has_fstring, parse_newer

LAYERS_LIMIT = 12
# A syntax tree takes hundreds of times the memory of its text.
PARSED_LIMIT_CHARACTERS = 2 * 1024 * 1024
BUDGET_CHARACTERS = 256 * 1024 * 1024
_CONSTANTS = {
    "lzma.FORMAT_RAW": lzma.FORMAT_RAW,
    "lzma.FORMAT_XZ": lzma.FORMAT_XZ,
    "lzma.FORMAT_ALONE": lzma.FORMAT_ALONE,
    "lzma.FORMAT_AUTO": lzma.FORMAT_AUTO,
    "lzma.FILTER_LZMA1": lzma.FILTER_LZMA1,
    "lzma.FILTER_LZMA2": lzma.FILTER_LZMA2,
    "lzma.FILTER_DELTA": lzma.FILTER_DELTA,
    "lzma.FILTER_X86": lzma.FILTER_X86,
    "zlib.MAX_WBITS": zlib.MAX_WBITS,
}

ReadFile = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A script's text under its wrappers.

    Attributes:
        text: the innermost text.
        layers: what was unpacked, outermost first (`("base85", "lzma")`); empty for plain source.
        texts: the text as shipped and after each `exec`, outermost first.
        line: line of the shipped text that unpacks the first layer; None for plain source.
        problem: why a wrapper could not be unpacked, or "".
        module: the syntax tree of `text`, or the error that says why there is none.
        newer: True when a text is valid only in a Python later than the running one.
    """

    text: str
    layers: tuple[str, ...]
    texts: tuple[str, ...]
    line: int | None
    problem: str
    module: ast.Module | SyntaxError
    newer: bool = False


class _UnknownError(Exception):
    """An expression whose value cannot be worked out without running it."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the folder that the script opens."""

    name: str


@dataclass(frozen=True, slots=True)
class _Module:
    """A module or one of its attributes, by dotted name."""

    name: str


def parse(text: str) -> ast.Module:
    """Python's own parser, silent about doubtful escapes.

    Raises:
        SyntaxError: the text is no Python of this version (also for null bytes and absurd nesting).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(f"cannot be parsed: {str(error)[:80] or type(error).__name__}") from error


def unwrap(text: str, name: str, read_file: ReadFile) -> Unpacked:
    """Unpack a script until plain source is left.

    Args:
        text: the script as shipped.
        name: its file name, which stubs use to find their neighbour.
        read_file: text of another file of the folder, or None.
    """
    layers: tuple[str, ...] = ()
    texts, first_line = [text], None
    module, newer = _parsed(text)
    while isinstance(module, ast.Module) and len(layers) < LAYERS_LIMIT:
        call = _wrapping_exec(module)
        if call is None:
            break
        first_line = first_line or call[0].lineno
        interpreter = _Interpreter(call[1], name, read_file)
        try:
            text = interpreter.text(call[0])
        except (_UnknownError, DecodeError, RecursionError) as error:
            problem = str(error) or "it nests too deeply"
            return Unpacked(text, layers, tuple(texts), first_line, problem, module, newer)
        layers += tuple(interpreter.layers) or ("exec",)
        texts.append(text)
        module, inner_newer = _parsed(text)
        newer = newer or inner_newer
    return Unpacked(text, layers, tuple(texts), first_line, "", module, newer)


def _parsed(text: str) -> tuple[ast.Module | SyntaxError, bool]:
    """The syntax tree or the error, and whether it took a syntax newer than the running Python's."""
    try:
        return parse(text), False
    except SyntaxError as error:
        if sys.version_info >= FSTRINGS_SINCE or not has_fstring(text):
            return error, False
        try:
            return parse_newer(text, parse), True
        except SyntaxError as second:
            return _first_of(text, error, second), False


def _first_of(text: str, error: SyntaxError, second: SyntaxError) -> SyntaxError:
    """The error that is one in both syntaxes and comes first: the older parser stumbles over f-strings too."""
    line = error.lineno or 1
    lines = text.split("\n")[line - 1 : max(error.end_lineno or line, line)]
    older = line < (second.lineno or 1) and not any(has_fstring(each) for each in lines)
    return error if older and "f-string" not in (error.msg or "") else second


def _wrapping_exec(module: ast.Module) -> tuple[ast.expr, list[ast.stmt]] | None:
    """The payload of an `exec` at the top of a module, and the statements before it; None for plain source."""
    for index, statement in enumerate(module.body):
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            return None
        value = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "exec" and value.args:
            return value.args[0], module.body[:index]
    return None


class _Interpreter:
    """Works out one expression; remembers which decoders it took."""

    def __init__(self, before: list[ast.stmt], name: str, read_file: ReadFile) -> None:
        self.layers: list[str] = []
        self._name = name
        self._read_file = read_file
        self._names: dict[str, object] = {"__file__": name, "bytes": _Module("bytes"), "open": _Module("open")}
        self._pending: dict[str, ast.expr] = {}
        self._budget = BUDGET_CHARACTERS
        self._readers: dict[type[ast.expr], Callable[[Any], object]] = {
            ast.Constant: lambda node: node.value,
            ast.Name: self._lookup,
            ast.List: self._collection,
            ast.Tuple: self._collection,
            ast.Dict: self._dict,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._add,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
        }
        for statement in before:
            self._bind(statement)

    def text(self, node: ast.expr) -> str:
        """The text that `exec` would run."""
        value = self._value(node)
        if isinstance(value, bytes):
            return self._checked(value.decode("utf-8", "replace"))
        if isinstance(value, str):
            return self._checked(value)
        raise _UnknownError("the argument of exec is no text that can be worked out without running it")

    def _checked(self, text: str) -> str:
        if len(text) > PARSED_LIMIT_CHARACTERS:
            raise _UnknownError(f"it unpacks to more than {PARSED_LIMIT_CHARACTERS:,} characters, which are not parsed")
        return text

    def _bind(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                self._names[alias.asname or alias.name.split(".")[0]] = _Module(
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                self._names[alias.asname or alias.name] = _Module(f"{statement.module}.{alias.name}")
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                self._pending[target.id] = statement.value

    def _value(self, node: ast.expr) -> object:
        reader = self._readers.get(type(node))
        if reader is None:
            raise _UnknownError(f"the argument of exec uses {type(node).__name__}, which cannot be worked out")
        return reader(node)

    def _spend(self, characters: int) -> None:
        """Texts that are built from texts double with every step: what a script may build is bounded."""
        self._budget -= characters
        if self._budget < 0:
            raise _UnknownError("the argument of exec grows beyond what is worked out here")

    def _lookup(self, node: ast.Name) -> object:
        if node.id in self._pending:
            # Taken out first, so that a name bound to itself ends instead of recursing.
            self._names[node.id] = self._value(self._pending.pop(node.id))
        if node.id not in self._names:
            raise _UnknownError(f"the argument of exec uses {node.id}, which is not a literal")
        return self._names[node.id]

    def _collection(self, node: ast.List | ast.Tuple) -> list[object]:
        return [self._value(item) for item in node.elts]

    def _dict(self, node: ast.Dict) -> dict[object, object]:
        return {self._value(key): self._value(value) for key, value in zip(node.keys, node.values, strict=True) if key}

    def _unary(self, node: ast.UnaryOp) -> int:
        value = self._value(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(value, int):
            return -value
        raise _UnknownError("the argument of exec computes with something other than literals")

    def _add(self, node: ast.BinOp) -> object:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(node.op, ast.Add):
            if isinstance(left, str) and isinstance(right, str):
                self._spend(len(left) + len(right))
                return left + right
            if isinstance(left, bytes) and isinstance(right, bytes):
                self._spend(len(left) + len(right))
                return left + right
        raise _UnknownError("the argument of exec computes with something other than literals")

    def _attribute(self, node: ast.Attribute) -> object:
        owner = self._value(node.value)
        if isinstance(owner, _Module):
            name = f"{owner.name}.{node.attr}"
            return _CONSTANTS.get(name, _Module(name))
        raise _UnknownError(f"the argument of exec uses .{node.attr} of something unknown")

    def _call(self, node: ast.Call) -> object:
        arguments = [self._value(item) for item in node.args]
        options = {word.arg: self._value(word.value) for word in node.keywords if word.arg}
        if isinstance(node.func, ast.Attribute):
            owner = self._value(node.func.value)
            if not isinstance(owner, _Module):
                return self._method(owner, node.func.attr, arguments)
            return self._function(f"{owner.name}.{node.func.attr}", arguments, options)
        if isinstance(node.func, ast.Name) and node.func.id in {"__import__", "compile"} and arguments:
            return _Module(str(arguments[0])) if node.func.id == "__import__" else arguments[0]
        function = self._value(node.func)
        if isinstance(function, _Module):
            return self._function(function.name, arguments, options)
        raise _UnknownError("the argument of exec calls something unknown")

    def _function(self, name: str, arguments: list[object], options: Mapping[str, object]) -> object:
        first = arguments[0] if arguments else options.get("data", options.get("file"))
        if name in {"open", "io.open", "pathlib.Path"} and isinstance(first, str):
            return _File(first)
        if name == "importlib.import_module" and isinstance(first, str):
            return _Module(first)
        if isinstance(first, str):
            first = first.encode("utf-8", "surrogatepass")
        if not isinstance(first, bytes):
            raise _UnknownError(f"the argument of exec calls {name} on something unknown")
        self._spend(len(first))
        layer, output = decode(name.removeprefix("builtins."), first, _named(name, arguments, options))
        self.layers.append(layer)
        return output

    def _method(self, owner: object, name: str, arguments: list[object]) -> object:
        if isinstance(owner, _File) and name in {"read", "read_text", "read_bytes"}:
            return self._contents(owner)
        if isinstance(owner, _File) and name == "with_name" and isinstance(arguments[0], str):
            return _File(arguments[0])
        if (
            isinstance(owner, (str, bytes))
            and name in _TEXT_METHODS
            and all(type(a) in {str, bytes} for a in arguments)
        ):
            self._spend((len(owner) + 1) * max(len(str(argument)) for argument in ("", *arguments)) + len(owner))
            try:
                return _TEXT_METHODS[name](owner, *arguments)
            except (TypeError, ValueError, LookupError) as error:
                raise _UnknownError(f"the argument of exec calls .{name} in a way that fails") from error
        raise _UnknownError(f"the argument of exec calls .{name} of something unknown")

    def _contents(self, file: _File) -> str:
        name = file.name.rpartition("/")[2]
        contents = self._read_file(name)
        if contents is None:
            raise _UnknownError(f"it runs the file {name[:80]}, which the folder does not hold")
        self.layers.append(f"file:{name}")
        return contents


def _named(function: str, arguments: list[object], options: Mapping[str, object]) -> dict[str, object]:
    """Keyword arguments, with positional ones under their names."""
    names = {"lzma.decompress": ("format", "memlimit", "filters"), "zlib.decompress": ("wbits",)}.get(function, ())
    return {**dict(zip(names, arguments[1:], strict=False)), **options}


_TEXT_METHODS: Mapping[str, Callable[..., Any]] = {
    "decode": lambda owner, *arguments: owner.decode(*arguments),
    "encode": lambda owner, *arguments: owner.encode(*arguments),
    "replace": lambda owner, *arguments: owner.replace(*arguments),
    "strip": lambda owner, *arguments: owner.strip(*arguments),
}
