"""JSON Schemas by name, and what they reject, as short sentences with JSON pointers.

The schemas stand in the checkout's `schemas/` folder and travel inside the wheel as `harness.schemas`. Messages
are our own: a library's messages quote the whole rejected value, which comes from untrusted files.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.resources
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model import HarnessError

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import ValidationError

SHOWN_CHARACTERS = 60
PROBLEMS_SHOWN = 20
DEPTH_LIMIT = 64
TOO_DEEP = "is nested too deeply"


def load(name: str) -> dict[str, Any]:
    """The schema `name` (`submission`, `report`, ...).

    Raises:
        HarnessError: there is no such schema, neither in the installed package nor in the checkout.
    """
    file_name = f"{name}.schema.json"
    checkout = Path(__file__).resolve().parents[2] / "schemas" / file_name
    try:
        packaged = importlib.resources.files("harness.schemas") / file_name
        text = packaged.read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError, NotADirectoryError):
        if not checkout.is_file():
            raise HarnessError(f"no schema {file_name}: the installation is incomplete") from None
        text = checkout.read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """A validator for the schema `name`; made once for each process, since compiling costs more than using it."""
    from jsonschema import Draft202012Validator

    schema = load(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=_dates())


def problems(name: str, document: object) -> list[tuple[str, str]]:
    """What the schema `name` rejects in a parsed JSON document.

    Numbers that are no JSON (NaN, infinities), which Python's reader lets through, are rejected too.

    Returns:
        (JSON pointer, one clause) for each problem, at most `PROBLEMS_SHOWN`, in document order.
    """
    found = [(_pointer(path), clause) for path, clause in _unusable(document)]
    if any(clause == TOO_DEEP for _, clause in found):
        return sorted(set(found))[:PROBLEMS_SHOWN]  # the library recurses, so it may not see this document
    errors = validator(name).iter_errors(document)
    found += [(_pointer(tuple(error.absolute_path)), _clause(error)) for error in errors]
    return sorted(set(found))[:PROBLEMS_SHOWN]


def _dates() -> FormatChecker:
    """Checks `date` and `date-time` by the calendar; the pattern beside each format fixes its spelling."""
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())

    @checker.checks("date", raises=ValueError)
    def _date(value: object) -> bool:
        return not isinstance(value, str) or bool(dt.date.fromisoformat(value))

    @checker.checks("date-time", raises=ValueError)
    def _time(value: object) -> bool:
        return not isinstance(value, str) or bool(dt.datetime.fromisoformat(value))

    return checker


def _unusable(document: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Places that no schema sees: NaN and infinities, and nesting; iterative, because hostile documents nest deeply."""
    stack: list[tuple[tuple[str | int, ...], object]] = [((), document)]
    while stack:
        path, value = stack.pop()
        if len(path) > DEPTH_LIMIT:
            yield path[:1], TOO_DEEP
        elif isinstance(value, float) and not math.isfinite(value):
            yield path, "is not a finite number"
        elif isinstance(value, Mapping):
            stack += [((*path, key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [((*path, index), inner) for index, inner in enumerate(value)]


def _pointer(path: tuple[str | int, ...]) -> str:
    """The JSON pointer (RFC 6901) of a path; empty for the whole document."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _clause(error: ValidationError) -> str:
    """What is wrong, without quoting more than a little of the value."""
    if error.validator == "required" and isinstance(error.instance, Mapping):
        # One error for each absent key: the library's message starts with the key, in quotes.
        return f"lacks {error.message.split(' is a required')[0].replace(chr(39), chr(96))}"
    if error.validator == "anyOf" and not error.absolute_path and error.context:
        return f"lacks {_keyword(error, 'anyOf', 0, 'description')}"
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        unknown = [key for key in error.instance if _keyword(error, "properties", key) is None]
        return "has unknown keys: " + ", ".join(map(_shown, unknown))
    expected = _keyword(error, "description") or f"{error.validator} {_shown(error.validator_value)}"
    return f"is {_shown(error.instance)}, expected {expected}"


def _keyword(error: ValidationError, *steps: str | int) -> object:
    """A part of the subschema that the error comes from, or None."""
    part: object = error.schema
    for step in steps:
        if isinstance(part, Mapping):
            part = part.get(step)
        elif isinstance(part, list) and isinstance(step, int) and step < len(part):
            part = part[step]
        else:
            return None
    return part


def _shown(value: object) -> str:
    """A value as JSON, shortened; escapes make control and bidirectional characters visible."""
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        text = "a deeply nested value"
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
