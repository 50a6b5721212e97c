"""Facts as reports see them: JSON-ready values with their places, read without trusting their shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.model import Location, Value
from harness.report import values

ROWS_LIMIT = 500
PARTS_LIMIT = 12
DEPTH_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table: its text, where it was read, and why there is none."""

    text: str = ""
    place: Location | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A fact by its dotted name."""

    name: str
    cell: Cell


def within(value: Value, *keys: str) -> Value:
    """The member under a path of keys; a fact's own value is looked into; None where there is none."""
    for key in keys:
        value = unlocated(value)
        value = value.get(key) if isinstance(value, dict) else None
    return value


def unlocated(value: Value) -> Value:
    """A fact's value; anything else as it is."""
    return value["value"] if isinstance(value, dict) and "value" in value else value


def number(value: Value) -> float | None:
    """A fact's value where it is a number."""
    bare = unlocated(value)
    return float(bare) if isinstance(bare, (int, float)) and not isinstance(bare, bool) else None


def place(value: Value) -> Location | None:
    """Where a fact was read."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return None
    line, pointer, layer = value.get("line"), value.get("pointer"), value.get("layer")
    return Location(
        str(value["path"]),
        line if isinstance(line, int) else None,
        pointer if isinstance(pointer, str) else None,
        layer if isinstance(layer, str) else "",
    )


def cell(name: str, value: Value) -> Cell:
    """A fact as a cell; the name's ending gives the unit."""
    if isinstance(value, dict) and isinstance(value.get("missing"), str):
        return Cell("", place(value), str(value["missing"]))
    bare = unlocated(value)
    if bare is None:
        return Cell("", None, "not read")
    return Cell(values.text(name, bare), place(value))


def members(facts: Mapping[str, Value], *keys: str) -> list[dict[str, Value]]:
    """The objects of a list of facts."""
    found = within(dict(facts), *keys)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Group:
    """Facts that stand together; `cut` of them are left out."""

    name: str
    rows: tuple[Row, ...]
    cut: int


def groups(facts: Mapping[str, Value]) -> list[Group]:
    """Every fact, by family, each run apart, as far as there is room."""
    found: list[Group] = []
    for family, value in facts.items():
        parts = value[:PARTS_LIMIT] if isinstance(value, list) else [value]
        for index, part in enumerate(parts, start=1):
            every = [row if row.name else Row(family, row.cell) for row in _rows("", part, DEPTH_LIMIT)]
            name = f"{family}, {index} of {len(value)}" if isinstance(value, list) and len(value) > 1 else family
            found.append(Group(name, tuple(every[:ROWS_LIMIT]), max(len(every) - ROWS_LIMIT, 0)))
    return [group for group in found if group.rows]


def _rows(name: str, value: Value, depth: int) -> Iterator[Row]:
    if isinstance(value, dict) and ("missing" in value or "value" in value):
        yield from _fact(name, value, depth)
    elif isinstance(value, dict) and depth:
        for key, member in value.items():
            yield from _rows(f"{name}.{key}".lstrip("."), member, depth - 1)
    elif isinstance(value, list) and value and all(isinstance(item, list) for item in value):
        # A series of points: the figures draw it.
        yield Row(name, Cell(f"{len(value)} points, the last at {values.text('', value[-1])}"))
    elif isinstance(value, list) and depth and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from _rows(f"{name}[{index}]", item, depth - 1)
    elif value not in (None, "", [], {}):
        yield Row(name, Cell(values.text(name, value)))


def _fact(name: str, value: dict[str, Value], depth: int) -> Iterator[Row]:
    """A fact; one that is made of others is told by these."""
    inner = value.get("value")
    if isinstance(inner, dict) and depth:
        yield from _rows(name, inner, depth - 1)
    else:
        yield Row(name, cell(name, value))
