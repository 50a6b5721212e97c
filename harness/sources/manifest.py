"""submission.json: its values, each with JSON pointer and line.

The file comes from outside: duplicate keys, NaN, numbers that overflow, deep nesting, byte-order marks and lone
surrogates are all valid input to Python's reader, and are refused or reported here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model import Located, Location, Missing, Value
from harness.sources.folder import decode, shown

DEPTH_LIMIT = 64
SIZE_LIMIT_BYTES = 4 * 1024 * 1024
DIGITS_LIMIT = 400
DUPLICATES_LIMIT = 20
KEY_LIMIT_CHARACTERS = 1_024
# Of the pointers of all values together: each repeats the keys above it.
POINTERS_LIMIT_CHARACTERS = 32 * 1024 * 1024

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed submission.json.

    Attributes:
        path: relative path.
        document: the top-level object; None when the file does not parse to one.
        lines: 1-based line of each value, by JSON pointer.
        problems: why it does not parse, or what is doubtful in it (duplicate keys), each with its place.
    """

    path: str
    document: Mapping[str, Value] | None
    lines: Mapping[str, int]
    problems: tuple[Located[str], ...]

    def at(self, pointer: str) -> Location:
        """The place of the value at a pointer."""
        return Location(self.path, self.lines.get(pointer), pointer)

    def first(self, names: Sequence[str]) -> Located[Value] | Missing:
        """The first of several synonymous top-level keys that has a value other than null."""
        if self.document is None:
            return Missing(f"{self.path} does not parse", Location(self.path))
        for name in names:
            if self.document.get(name) is not None:
                return Located(self.document[name], self.at(pointer(name)))
        return Missing(f"{self.path} has no {names[0]}", Location(self.path))


def read(data: bytes, path: str) -> Manifest:
    """Parse a submission.json; never raises, whatever the bytes are."""
    if len(data) > SIZE_LIMIT_BYTES:
        return _refused(path, f"is larger than {SIZE_LIMIT_BYTES:,} bytes", None)
    text = decode(data)
    duplicates: list[str] = []
    document = _parse(text, duplicates)
    if isinstance(document, _Refusal):
        return _refused(path, document.reason, document.line)
    if _depth(text) > DEPTH_LIMIT:
        return _refused(path, f"nests deeper than {DEPTH_LIMIT} levels", None)
    try:
        lines = _lines(text)
    except _TooLongError as error:
        # At no line: it is JSON nevertheless.
        return _refused(path, str(error), None)
    problems = [Located(f"has the key {shown(name)!r} twice", Location(path)) for name in duplicates]
    problems += [
        Located("holds characters that are no Unicode text", Location(path, lines.get(place), place))
        for place in _surrogates(document)
    ]
    return Manifest(path, document, lines, tuple(problems))


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a text is no usable JSON object, and where."""

    reason: str
    line: int | None = None


class _TooLongError(Exception):
    """Keys are too long to name every value by them; the message is one clause."""


def _parse(text: str, duplicates: list[str]) -> dict[str, Value] | _Refusal:
    """The object that a text is; keys that come twice are added to `duplicates`."""

    def unique(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
        result: dict[str, Value] = {}
        for name, value in pairs:
            if name in result and name not in duplicates and len(duplicates) < DUPLICATES_LIMIT:
                duplicates.append(name)
            result[name] = value
        return result

    try:
        document = json.loads(text, object_pairs_hook=unique, parse_int=_integer)
    except RecursionError:
        return _Refusal(f"nests deeper than {DEPTH_LIMIT} levels")
    except json.JSONDecodeError as error:
        return _Refusal(f"is no JSON: {error.msg}", error.lineno)
    except ValueError as error:
        return _Refusal(f"holds a number that cannot be read: {str(error)[:80]}")
    return document if isinstance(document, dict) else _Refusal("is no JSON object", 1)


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:
        raise ValueError(f"{len(digits)} digits")
    return int(digits)


def _refused(path: str, reason: str, line: int | None) -> Manifest:
    return Manifest(path, None, {}, (Located(reason, Location(path, line)),))


def _depth(text: str) -> int:
    """How deep a text nests that is known to be JSON."""
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "}]":
            depth -= 1
    return deepest


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901).

    Example:
        >>> pointer("seed_results", "a/b", 0)
        '/seed_results/a~1b/0'
    """
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _lines(text: str) -> dict[str, int]:
    """The line of every value in a text that is known to be JSON, by pointer.

    Raises:
        _TooLongError: a key, or all pointers together, are longer than is kept.
    """
    lines: dict[str, int] = {}
    # Each open container: its pointer, and the next index of an array or the key last read in an object.
    stack: list[tuple[str, int | None]] = []
    key: str | None = None
    here, line, offset, size = "", 1, 0, 0
    for token in _TOKEN.finditer(text):
        line += text.count("\n", offset, token.start())
        offset = token.start()
        mark = token[0]
        if mark == ",":
            if stack and stack[-1][1] is not None:
                stack[-1] = (stack[-1][0], stack[-1][1] + 1)
            key = None
        elif mark in "}]":
            stack.pop()
        elif mark != ":":
            if stack and stack[-1][1] is None and key is None:
                key = _key(mark)
                continue
            here = _child(stack, key)
            size = _added(size, here)
            lines[here] = line
            if mark in "{[":
                stack.append((here, 0 if mark == "[" else None))
                key = None
    return lines


def _key(mark: str) -> str:
    key: str = json.loads(mark)
    if len(key) > KEY_LIMIT_CHARACTERS:
        raise _TooLongError(f"holds a key of more than {KEY_LIMIT_CHARACTERS:,} characters")
    return key


def _added(size: int, place: str) -> int:
    if size + len(place) > POINTERS_LIMIT_CHARACTERS:
        raise _TooLongError("holds more values under long keys than are read")
    return size + len(place)


def _child(stack: list[tuple[str, int | None]], key: str | None) -> str:
    if not stack:
        return ""
    parent, index = stack[-1]
    return parent + pointer(key or "" if index is None else index)


def _surrogates(document: Value) -> list[str]:
    """Pointers of strings (or of values under keys) with lone surrogates."""
    found: list[str] = []
    stack: list[tuple[str, Value]] = [("", document)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, dict):
            stack += [(place + pointer(name), inner) for name, inner in value.items()]
            found += [place for name in value if not _is_text(name)]
        elif isinstance(value, list):
            stack += [(place + pointer(index), inner) for index, inner in enumerate(value)]
        elif isinstance(value, str) and not _is_text(value):
            found.append(place)
    return sorted(set(found))


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def is_finite_number(value: object) -> bool:
    """Whether a parsed value is a number that arithmetic can use; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # An integer beyond the range of floats is no measurement either.
    return abs(value) < 1e300 and math.isfinite(value)
