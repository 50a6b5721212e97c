"""Facts as JSON values: compact, every value with its place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping

from harness.model import Located, Location, Missing, Value


def as_value(item: object) -> Value:
    """A fact, or anything made of facts, as a JSON value.

    A `Located` becomes its value beside `path`, `line`, `pointer` and `layer`, as far as they are known; a
    `Missing` becomes `missing` with the reason beside its place. Numbers that JSON has no word for and lone
    surrogates are replaced, since readers of the document would choke on them.

    Example:
        >>> as_value(Located(1.5, Location("train.log", 7)))
        {'value': 1.5, 'path': 'train.log', 'line': 7}
    """
    if isinstance(item, Located):
        return {"value": as_value(item.value), **_place(item.location)}
    if isinstance(item, Missing):
        return {"missing": _text(item.reason), **(_place(item.location) if item.location else {})}
    if isinstance(item, Location):
        return _place(item)
    return _plain(item)


def _plain(item: object) -> Value:
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: as_value(getattr(item, field.name)) for field in dataclasses.fields(item)}
    if isinstance(item, Mapping):
        return {_text(str(key)): as_value(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [as_value(value) for value in item]
    if isinstance(item, (dt.date, dt.datetime)):
        return item.isoformat()
    return _scalar(item)


def _scalar(item: object) -> Value:
    if isinstance(item, float) and not math.isfinite(item):
        return str(item)
    if item is None or isinstance(item, (bool, int, float)):
        return item
    return _text(str(item))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _place(location: Location) -> dict[str, Value]:
    place: dict[str, Value] = {"path": _text(location.path)}
    if location.line is not None:
        place["line"] = location.line
    if location.pointer is not None:
        place["pointer"] = _text(location.pointer)
    if location.layer:
        place["layer"] = _text(location.layer)
    return place
