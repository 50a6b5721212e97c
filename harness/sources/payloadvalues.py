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
            return File(posixpath.join(left.path, right))
        if isinstance(operator, ast.Add) and type(left) is type(right) and isinstance(left, (str, bytes)):
            self.spend(len(left) + len(right))  # type: ignore[arg-type]
            return left + right  # type: ignore[operator]
        if type(left) is type(right) is int and isinstance(operator, (ast.Add, ast.BitOr)):
            return left + right if isinstance(operator, ast.Add) else left | right
        raise UnknownPayloadError("the argument of exec computes with something other than literals")

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


def _module_function(_work: Workshop, name: str, first: object, arguments: Sequence[object]) -> object | None:
    """Imports by call, and attributes by name."""
    if name in {"__import__", "importlib.import_module"} and isinstance(first, str):
        return Module(first)
    if name == "getattr" and len(arguments) > 1 and isinstance(first, Module) and isinstance(arguments[1], str):
        whole = f"{first.name}.{arguments[1]}"
        return CONSTANTS.get(whole, Module(whole))
    return None


def _path_function(_work: Workshop, name: str, first: object, arguments: Sequence[object]) -> object | None:
    """Names of files and directories; a temporary directory has no name that matters."""
    if name in {"tempfile.mkdtemp", "os.getcwd", "tempfile.gettempdir"}:
        return ""
    if name == "importlib.util.spec_from_file_location" and len(arguments) > 1:
        first = arguments[1]
    path = first.path if isinstance(first, File) else first
    if not isinstance(path, str):
        return None
    if name in {"open", "io.open"}:
        return File(path, binary="b" in str(arguments[1] if len(arguments) > 1 else ""))
    more = [str(part) for part in arguments[1:]]
    makers: Mapping[str, Callable[[], object]] = {
        "pathlib.Path": lambda: File(posixpath.join(path, *more)),
        "importlib.util.spec_from_file_location": lambda: File(path),
        "os.path.dirname": lambda: posixpath.dirname(path),
        "os.path.join": lambda: posixpath.join(path, *more),
        **dict.fromkeys(
            ("os.path.abspath", "os.path.realpath", "os.fspath", "os.path.expanduser", "str"), lambda: path
        ),
    }
    return makers[name]() if name in makers else None


def _plain_function(work: Workshop, name: str, first: object, arguments: Sequence[object]) -> object | None:
    """Functions that change the form of a value only."""
    if name in {"compile", "types.FunctionType", "io.BytesIO", "io.StringIO", "textwrap.dedent"}:
        return first
    if name == "zip":
        return [list(row) for row in zip(*(a for a in arguments if isinstance(a, list)), strict=False)]
    if name in {"json.loads", "json.load"} and isinstance(first, (str, bytes)):
        return _json(work, first)
    if name in {"bytes", "bytearray"}:
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
        return _path_method(owner, name, arguments)
    if isinstance(owner, dict) and name == "items":
        return [list(pair) for pair in owner.items()]
    if isinstance(owner, (str, bytes)):
        if name in {"read", "read_text", "read_bytes"}:
            return owner
        if name in _TEXT_METHODS:
            return _text_method(work, owner, name, arguments)
    raise UnknownPayloadError(f"the argument of exec calls .{name} of something unknown")


def _path_method(file: File, name: str, arguments: Sequence[object]) -> object:
    if name in {"resolve", "absolute", "expanduser"}:
        return file
    if name == "open":
        return File(file.path, binary="b" in str(arguments[0] if arguments else ""))
    last = arguments[0] if arguments else None
    if name == "with_name" and isinstance(last, str):
        return File(posixpath.join(posixpath.dirname(file.path), last))
    if name == "with_suffix" and isinstance(last, str):
        return File(posixpath.splitext(file.path)[0] + last)
    if name == "joinpath" and isinstance(last, str):
        return File(posixpath.join(file.path, *(str(part) for part in arguments)))
    raise UnknownPayloadError(f"the argument of exec calls .{name} of a file, which cannot be worked out")


def _text_method(work: Workshop, owner: str | bytes, name: str, arguments: Sequence[object]) -> object:
    if any(isinstance(item, list) and len(item) > ITEMS_LIMIT for item in arguments):
        raise UnknownPayloadError("the argument of exec joins more pieces than are worked out here")
    # A replacement may stand in for every character; a joint stands between all pieces.
    pieces = [piece for item in arguments for piece in (item if isinstance(item, list) else [item])]
    lengths = [len(piece) for piece in pieces if isinstance(piece, (str, bytes))]
    work.spend((len(owner) + 1) * max([1, *lengths]) + len(owner) * len(pieces) if name != "join" else 0)
    work.spend(sum(lengths) + len(owner) * len(lengths) if name == "join" else 0)
    try:
        return _TEXT_METHODS[name](owner, *arguments)
    except (TypeError, ValueError, LookupError) as error:
        raise UnknownPayloadError(f"the argument of exec calls .{name} in a way that fails") from error


def _replaced(owner: Any, old: Any, new: Any) -> Any:  # noqa: ANN401 - texts or bytes, never both
    return owner.replace(old, new)


def _split(owner: Any, *arguments: Any) -> Any:  # noqa: ANN401 - texts or bytes, never both
    pieces = owner.split(*arguments[:1], ITEMS_LIMIT) if arguments else owner.split(None, ITEMS_LIMIT)
    return owner.split(*arguments) if len(arguments) > 1 else pieces


_TEXT_METHODS: Mapping[str, Callable[..., Any]] = {
    "decode": lambda owner, encoding="utf-8", errors="strict": owner.decode(_encoding(encoding), errors),
    "encode": lambda owner, encoding="utf-8", errors="strict": owner.encode(_encoding(encoding), errors),
    "replace": _replaced,
    "strip": lambda owner, *arguments: owner.strip(*arguments),
    "lstrip": lambda owner, *arguments: owner.lstrip(*arguments),
    "rstrip": lambda owner, *arguments: owner.rstrip(*arguments),
    "removeprefix": lambda owner, prefix: owner.removeprefix(prefix),
    "removesuffix": lambda owner, suffix: owner.removesuffix(suffix),
    "join": lambda owner, pieces: owner.join(pieces),
    "split": _split,
    "rsplit": lambda owner, separator, most=-1: owner.rsplit(separator, min(most, ITEMS_LIMIT)),
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
