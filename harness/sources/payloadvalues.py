"""The values of a packed script's wrapper, and the functions and methods on them that are understood."""

from __future__ import annotations

import ast
import json
import lzma
import posixpath
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.sources.decoders import decode

BUDGET_CHARACTERS = 256 * 1024 * 1024
ITEMS_LIMIT = 100_000
# What it costs to look at one item of a list, in characters of the budget.
ITEM_CHARACTERS = 32
CONSTANTS: Mapping[str, object] = {
    **{f"lzma.{name}": getattr(lzma, name) for name in dir(lzma) if name.startswith(("FORMAT_", "FILTER_", "PRESET_"))},
    "zlib.MAX_WBITS": zlib.MAX_WBITS,
    "os.sep": "/",
}

ReadFile = Callable[[str], "str | bytes | None"]


class UnknownPayloadError(Exception):
    """An expression whose value cannot be worked out without running it."""


@dataclass(frozen=True, slots=True)
class File:
    """A file or directory that the wrapper names; `binary` when it was opened for its bytes."""

    path: str
    binary: bool = False

    @property
    def base(self) -> str:
        """Its name without directories."""
        return self.path.rpartition("/")[2]

    def parent(self) -> File:
        """The directory that it lies in."""
        return File(posixpath.dirname(self.path))

    def candidates(self) -> tuple[str, ...]:
        """Where it can lie in the folder, seen from the script: at its path, else beside the script."""
        whole = posixpath.normpath(self.path)
        inside = not whole.startswith(("/", "..")) and whole != self.base
        return (whole, self.base) if inside else (self.base,)


@dataclass(frozen=True, slots=True)
class Module:
    """A module or one of its attributes, by dotted name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Stream:
    """A decompressor object, with the function and options that do the same at once."""

    function: str
    options: Mapping[str, object]


_STREAMS = {
    "lzma.LZMADecompressor": ("lzma.decompress", ("format", "memlimit", "filters")),
    "zlib.decompressobj": ("zlib.decompress", ("wbits",)),
    "bz2.BZ2Decompressor": ("bz2.decompress", ()),
    "brotli.Decompressor": ("brotli.decompress", ()),
    "zstandard.ZstdDecompressor": ("zstandard.decompress", ()),
    "compression.zstd.ZstdDecompressor": ("zstandard.decompress", ()),
}
OPENERS = {
    "lzma.open": "lzma.decompress",
    "lzma.LZMAFile": "lzma.decompress",
    "gzip.open": "gzip.decompress",
    "gzip.GzipFile": "gzip.decompress",
    "bz2.open": "bz2.decompress",
    "bz2.BZ2File": "bz2.decompress",
    "zstandard.open": "zstandard.decompress",
    "compression.zstd.open": "zstandard.decompress",
}
_NEVER_LOADED = frozenset({"marshal", "pickle", "dill", "cloudpickle", "_pickle", "shelve"})
_PARAMETERS = {"lzma.decompress": ("format", "memlimit", "filters"), "zlib.decompress": ("wbits",)}


class Workshop:
    """What it may cost to work values out, and the decoders taken on the way."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self._budget = BUDGET_CHARACTERS

    def spend(self, characters: int) -> None:
        """Texts that are built from texts double with every step: what a script may build is bounded."""
        self._budget -= characters
        if self._budget < 0:
            raise UnknownPayloadError("the argument of exec grows beyond what is worked out here")

    def combined(self, operator: ast.operator, left: object, right: object) -> object:
        """Texts joined, paths joined, small numbers added and their bits united."""
        if isinstance(operator, ast.Div) and isinstance(left, File) and isinstance(right, str):
            return File(self.path(left, right))
        if isinstance(operator, ast.Add) and type(left) is type(right) and isinstance(left, (str, bytes)):
            self.spend(len(left) + len(right))  # type: ignore[arg-type]
            return left + right  # type: ignore[operator]
        if type(left) is type(right) is int and isinstance(operator, (ast.Add, ast.BitOr)):
            return left + right if isinstance(operator, ast.Add) else left | right
        raise UnknownPayloadError("the argument of exec computes with something other than literals")

    def path(self, *parts: object) -> str:
        """The path that texts and files make one after another."""
        texts = [part.path if isinstance(part, File) else part for part in parts]
        names = [text for text in texts if isinstance(text, str)]
        if len(names) < len(texts):
            raise UnknownPayloadError("the argument of exec makes a path of something that is no text")
        self.spend(sum(map(len, names)))
        return posixpath.join(*names)

    def row(self, items: int) -> None:
        """Spend what it costs to go through items, however short they are."""
        self.spend(ITEM_CHARACTERS * items)

    def item(self, owner: object, index: object) -> object:
        """One item or a slice of a text, a list or a dictionary."""
        if isinstance(index, slice) and isinstance(owner, (str, bytes, list)):
            self.spend(len(owner))
        usable = (isinstance(owner, (str, bytes, list)) and isinstance(index, (int, slice))) or (
            isinstance(owner, dict) and isinstance(index, (str, bytes, int))
        )
        try:
            if usable:
                return owner[index]  # type: ignore[index]
        except (LookupError, TypeError, ValueError) as error:
            raise UnknownPayloadError("the argument of exec takes an item that is not there") from error
        raise UnknownPayloadError("the argument of exec takes an item of something unknown")

    def decoded(self, name: str, data: object, options: Mapping[str, object]) -> object:
        """What a decoder makes of data."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if not isinstance(data, bytes):
            raise UnknownPayloadError(f"the argument of exec calls {name} on something unknown")
        self.spend(len(data))
        layer, output = decode(name, data, options)
        self.spend(len(output))
        self.layers.append(layer)
        return output


def function(work: Workshop, name: str, arguments: Sequence[object], options: Mapping[str, object]) -> object:
    """What a function of a module, or a builtin, returns."""
    name = name.removeprefix("builtins.").removeprefix("__builtins__.")
    if name.partition(".")[0] in _NEVER_LOADED:
        raise UnknownPayloadError(f"it runs byte code or objects from {name}, which are never loaded here")
    if name in _STREAMS:
        same, parameters = _STREAMS[name]
        return _Stream(same, {**dict(zip(parameters, arguments, strict=False)), **options})
    if name in OPENERS:
        data = options.get("fileobj", arguments[0] if arguments else options.get("filename"))
        return work.decoded(OPENERS[name], data, options)
    first = arguments[0] if arguments else options.get("data", options.get("file", options.get("source")))
    for family in (_module_function, _path_function, _plain_function):
        value = family(work, name, first, arguments)
        if value is not None:
            return value
    return work.decoded(name, first, {**_named(name, arguments), **options})


def _named(name: str, arguments: Sequence[object]) -> dict[str, object]:
    """Positional arguments under their names."""
    if name == "codecs.decode" and len(arguments) > 1:
        return {"encoding": arguments[1]}
    return dict(zip(_PARAMETERS.get(name, ()), arguments[1:], strict=False))


def _module_function(work: Workshop, name: str, first: object, arguments: Sequence[object]) -> object | None:
    """Imports by call, and attributes by name."""
    if name in {"__import__", "importlib.import_module"} and isinstance(first, str):
        return Module(first)
    if name == "getattr" and len(arguments) > 1 and isinstance(first, Module) and isinstance(arguments[1], str):
        whole = f"{first.name}.{arguments[1]}"
        work.spend(len(whole))
        return CONSTANTS.get(whole, Module(whole))
    return None


def _path_function(work: Workshop, name: str, first: object, arguments: Sequence[object]) -> object | None:
    """Names of files and directories; a temporary directory has no name that matters."""
    if name in {"tempfile.mkdtemp", "os.getcwd", "tempfile.gettempdir"}:
        return ""
    if name == "importlib.util.spec_from_file_location" and len(arguments) > 1:
        first = arguments[1]
    path = first.path if isinstance(first, File) else first
    if not isinstance(path, str):
        return None
    if name in {"open", "io.open"}:
        return File(path, binary=_is_binary(arguments[1:]))
    makers: Mapping[str, Callable[[], object]] = {
        "pathlib.Path": lambda: File(work.path(path, *arguments[1:])),
        "importlib.util.spec_from_file_location": lambda: File(path),
        "os.path.dirname": lambda: posixpath.dirname(path),
        "os.path.join": lambda: work.path(path, *arguments[1:]),
        **dict.fromkeys(
            ("os.path.abspath", "os.path.realpath", "os.fspath", "os.path.expanduser", "str"), lambda: path
        ),
    }
    return makers[name]() if name in makers else None


def _is_binary(arguments: Sequence[object]) -> bool:
    """Whether the mode, the first of some arguments if there is one, asks for bytes."""
    mode = arguments[0] if arguments else ""
    return isinstance(mode, str) and "b" in mode


def _plain_function(work: Workshop, name: str, first: object, arguments: Sequence[object]) -> object | None:
    """Functions that change the form of a value only."""
    if name in {"compile", "types.FunctionType", "io.BytesIO", "io.StringIO", "textwrap.dedent"}:
        return first
    if name == "zip":
        columns = [column for column in arguments if isinstance(column, list)]
        work.row(sum(map(len, columns)))
        return [list(row) for row in zip(*columns, strict=False)]
    if name in {"json.loads", "json.load"} and isinstance(first, (str, bytes)):
        return _json(work, first)
    if name in {"bytes", "bytearray"}:
        work.row(len(first) if isinstance(first, (str, bytes, list)) else 0)
        return _bytes(first)
    if name == "str" and isinstance(first, bytes):
        return first.decode("utf-8", "replace")
    return None


def _json(work: Workshop, text: str | bytes) -> object:
    work.spend(len(text))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownPayloadError("the argument of exec reads JSON that does not parse") from error


def _bytes(value: object) -> bytes | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    whole = isinstance(value, list) and all(isinstance(item, int) and 0 <= item < 256 for item in value)
    return bytes(value) if whole and isinstance(value, list) else None


def method(work: Workshop, owner: object, name: str, arguments: Sequence[object]) -> object:
    """What a method of a value returns."""
    if isinstance(owner, _Stream) and name in {"decompress", "process"}:
        return work.decoded(owner.function, arguments[0] if arguments else None, owner.options)
    if isinstance(owner, File):
        return _path_method(work, owner, name, arguments)
    if isinstance(owner, dict) and name == "items":
        work.row(len(owner))
        return [list(pair) for pair in owner.items()]
    if isinstance(owner, (str, bytes)):
        if name in {"read", "read_text", "read_bytes"}:
            return owner
        if name in _TEXT_METHODS:
            return _text_method(work, owner, name, arguments)
    raise UnknownPayloadError(f"the argument of exec calls .{name} of something unknown")


def _path_method(work: Workshop, file: File, name: str, arguments: Sequence[object]) -> object:
    if name in {"resolve", "absolute", "expanduser"}:
        return file
    if name == "open":
        return File(file.path, binary=_is_binary(arguments))
    last = arguments[0] if arguments else None
    if name == "with_name" and isinstance(last, str):
        return File(work.path(posixpath.dirname(file.path), last))
    if name == "with_suffix" and isinstance(last, str):
        work.spend(len(file.path) + len(last))
        return File(posixpath.splitext(file.path)[0] + last)
    if name == "joinpath":
        return File(work.path(file, *arguments))
    raise UnknownPayloadError(f"the argument of exec calls .{name} of a file, which cannot be worked out")


def _text_method(work: Workshop, owner: str | bytes, name: str, arguments: Sequence[object]) -> object:
    if any(isinstance(item, list) and len(item) > ITEMS_LIMIT for item in arguments):
        raise UnknownPayloadError("the argument of exec joins more pieces than are worked out here")
    # A replacement may stand in for every character; a joint stands between all pieces.
    pieces = [piece for item in arguments for piece in (item if isinstance(item, list) else [item])]
    lengths = [len(piece) for piece in pieces if isinstance(piece, (str, bytes))]
    work.row(len(pieces))
    if name == "join":
        # A text is joined by its characters.
        work.spend(sum(lengths) + len(owner) * max(len(pieces), *lengths, 0))
    else:
        work.spend((len(owner) + 1) * max([1, *lengths]) + len(owner) * len(pieces))
    try:
        return _TEXT_METHODS[name](owner, *arguments)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise UnknownPayloadError(f"the argument of exec calls .{name} in a way that fails") from error


def _replaced(owner: Any, old: Any, new: Any) -> Any:  # noqa: ANN401 - texts or bytes, never both
    return owner.replace(old, new)


def _joined(owner: Any, pieces: Any) -> Any:  # noqa: ANN401 - texts or bytes, never both
    # The keys of a dictionary would be joined too, and are counted nowhere.
    if not isinstance(pieces, (list, str)):
        raise TypeError("no list of pieces")
    return owner.join(pieces)


def _most(pieces: Any) -> int:  # noqa: ANN401 - whatever stands there
    """How often a text is split: as often as asked, up to a bound."""
    return ITEMS_LIMIT if pieces < 0 else min(pieces, ITEMS_LIMIT)


_TEXT_METHODS: Mapping[str, Callable[..., Any]] = {
    "decode": lambda owner, encoding="utf-8", errors="strict": owner.decode(_encoding(encoding), _errors(errors)),
    "encode": lambda owner, encoding="utf-8", errors="strict": owner.encode(_encoding(encoding), _errors(errors)),
    "replace": _replaced,
    "strip": lambda owner, *arguments: owner.strip(*arguments),
    "lstrip": lambda owner, *arguments: owner.lstrip(*arguments),
    "rstrip": lambda owner, *arguments: owner.rstrip(*arguments),
    "removeprefix": lambda owner, prefix: owner.removeprefix(prefix),
    "removesuffix": lambda owner, suffix: owner.removesuffix(suffix),
    "join": _joined,
    "split": lambda owner, separator=None, most=-1: owner.split(separator, _most(most)),
    "rsplit": lambda owner, separator=None, most=-1: owner.rsplit(separator, _most(most)),
    "partition": lambda owner, separator: list(owner.partition(separator)),
    "rpartition": lambda owner, separator: list(owner.rpartition(separator)),
    "find": lambda owner, part: owner.find(part),
    "rfind": lambda owner, part: owner.rfind(part),
    "index": lambda owner, part: owner.index(part),
    "rindex": lambda owner, part: owner.rindex(part),
}
_ENCODINGS = frozenset({"utf-8", "utf8", "ascii", "latin1", "latin-1", "iso-8859-1", "cp1252", "utf-16", "utf_8"})


def _encoding(name: object) -> str:
    """Encodings of text only: Python's other codecs decompress, without a bound."""
    if not isinstance(name, str) or name.lower() not in _ENCODINGS:
        raise ValueError("no plain encoding")
    return name


def _errors(name: object) -> object:
    """What to do with wrong characters: nothing that writes each of them out as a word."""
    if name not in {"strict", "ignore", "replace", "surrogateescape", "surrogatepass"}:
        raise ValueError("no plain handling of errors")
    return name
