"""Facts as JSON values: compact, every value with its place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import math
from collections.abc import Mapping
from typing import Any

from harness.model import Located, Location, Missing, Value

_AS_THEY_ARE = frozenset({bool, int, type(None)})


def as_value(item: object) -> Value:
    """A fact, or anything made of facts, as a JSON value.

    A `Located` becomes its value beside `path`, `line`, `pointer` and `layer`, as far as they are known; a
    `Missing` becomes `missing` with the reason beside its place. Numbers that JSON has no word for and lone
    surrogates are replaced, since readers of the document would choke on them.

    Example:
        >>> as_value(Located(1.5, Location("train.log", 7)))
        {'value': 1.5, 'path': 'train.log', 'line': 7}
    """
    if item.__class__ in _AS_THEY_ARE:
        return item  # type: ignore[return-value]  # its class is looked at above
    if isinstance(item, Located):
        return {"value": as_value(item.value), **_place(item.location)}
    if isinstance(item, Missing):
        return {"missing": _text(item.reason), **(_place(item.location) if item.location else {})}
    if isinstance(item, Location):
        return _place(item)
    return _plain(item)


def _plain(item: object) -> Value:
    if isinstance(item, (list, tuple)):
        return [as_value(value) for value in item]
    kind: type[Any] = type(item)
    names = _names(kind)  # type: ignore[arg-type]  # every type can be hashed
    if names is not None:
        return {name: as_value(getattr(item, name)) for name in names}
    if isinstance(item, str):
        return _text(str(item))
    if isinstance(item, Mapping):
        return {_text(str(key)): as_value(value) for key, value in item.items()}
    if isinstance(item, (dt.date, dt.datetime)):
        return item.isoformat()
    return _scalar(item)


@functools.cache
def _names(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass; None for other types."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _scalar(item: object) -> Value:
    if isinstance(item, float) and not math.isfinite(item):
        return str(item)
    if isinstance(item, float):
        return float(item)
    if item is None or isinstance(item, (bool, int)):
        return item
    return _text(str(item))


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _place(location: Location) -> dict[str, Value]:
    place: dict[str, Value] = {"path": _text(location.path)}
    if location.line is not None:
        place["line"] = location.line
    if location.pointer is not None:
        place["pointer"] = _text(location.pointer)
    if location.layer:
        place["layer"] = _text(location.layer)
    return place
