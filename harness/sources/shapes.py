"""JSON Schemas as plain functions, for documents of thousands of lines.

A library walks the schema for each line again; here it is walked once. Only the keywords that our own schema of lines
uses are known, and another one is an error: nothing is passed over in silence. Unlike the library, no number may be
NaN or infinite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Check = Callable[[Any], bool]
SAID: Final = frozenset({"description", "type", "properties", "required", "additionalProperties"})


def compiled(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Check:
    """A function that says whether a value is as a schema describes.

    Args:
        schema: the schema.
        root: the whole document, for `$ref` to its `$defs`.

    Raises:
        ValueError: it uses a keyword that is not known here.
    """
    if "$ref" in schema:
        return compiled(_found(schema, root), root)
    checks = [_type(schema["type"])] if "type" in schema else []
    for keyword, value in schema.items():
        if keyword not in SAID:
            checks.append(_keyword(keyword, value, root))
    if "properties" in schema:
        checks.append(_object(schema, root))
    return checks[0] if len(checks) == 1 else lambda value: all(check(value) for check in checks)


def _found(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    others = set(schema) - {"$ref", "description"}
    if others:
        raise ValueError(f"keywords beside $ref: {sorted(others)}")
    found: Mapping[str, Any] = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return found


def _object(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Check:
    if schema.get("additionalProperties") is not False:
        raise ValueError("an object must forbid further keys")
    inner = {name: compiled(each, root) for name, each in schema["properties"].items()}
    required = frozenset(schema.get("required", ()))

    def check(value: object) -> bool:
        if not isinstance(value, dict):
            return True
        return required <= value.keys() and all(name in inner and inner[name](each) for name, each in value.items())

    return check


def _keyword(keyword: str, value: Any, root: Mapping[str, Any]) -> Check:  # noqa: ANN401 - whatever a keyword has
    """One keyword; as in the standard it holds for values of other types."""
    if keyword == "items":
        inner = compiled(value, root)
        return lambda found: not isinstance(found, list) or all(map(inner, found))
    if keyword in {"const", "enum"}:
        allowed = [value] if keyword == "const" else value
        if not all(isinstance(each, str) for each in allowed):
            raise ValueError(f"keyword {keyword} of anything but texts")
        return lambda found: isinstance(found, str) and found in allowed
    if keyword == "pattern":
        pattern = re.compile(value)
        return lambda found: not isinstance(found, str) or pattern.search(found) is not None
    if keyword in BOUNDS:
        kind, bound = BOUNDS[keyword]
        return lambda found: not _is(found, kind) or bound(found, value)
    raise ValueError(f"keyword {keyword!r} is not known here")


def _number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


BOUNDS: Final[Mapping[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "minimum": ("number", lambda found, least: found >= least),
    "maximum": ("number", lambda found, most: found <= most),
    "minItems": ("array", lambda found, least: len(found) >= least),
    "maxItems": ("array", lambda found, most: len(found) <= most),
    "maxLength": ("string", lambda found, most: len(found) <= most),
}
TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: _number(value) and value % 1 == 0,
    "number": _number,
}


def _type(names: str | list[str]) -> Check:
    wanted = [TYPES[name] for name in ([names] if isinstance(names, str) else names)]
    return wanted[0] if len(wanted) == 1 else lambda value: any(each(value) for each in wanted)


def _is(value: object, kind: str) -> bool:
    return TYPES[kind](value)
