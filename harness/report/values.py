"""The numbers behind a finding: scalars as text, lists of rows as tables. Keys end in their unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model import Value

ROWS_SHOWN = 40
ITEMS_SHOWN = 12
UNITS = {"bytes": "bytes", "seconds": "s", "bpb": "BPB", "nats": "nats", "milliseconds": "ms"}
# Numbers under other keys are exact where they are whole, and have at most this many digits where not.
DIGITS = 10


@dataclass(frozen=True, slots=True)
class Rows:
    """A small table: its title, its columns and its rows, as text; `cut` rows are left out."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cut: int = 0


def tables(values: Mapping[str, Value]) -> list[Rows]:
    """The values that are lists of rows, each as a table."""
    return [_rows(label(key), rows) for key, value in values.items() if (rows := _row_dicts(value))]


def scalars(values: Mapping[str, Value]) -> list[tuple[str, str]]:
    """The other values as (label, text)."""
    return [(label(key), text(key, value)) for key, value in values.items() if not _row_dicts(value) and value != {}]


def label(key: str) -> str:
    """`total_bytes` becomes `total`, since the text carries the unit; `seed_count` becomes `seed count`.

    Example:
        >>> label("largest_logged_bytes"), label("seed_count")
        ('largest logged', 'seed count')
    """
    stem, _, unit = key.rpartition("_")
    return (stem if stem and unit in UNITS else key).replace("_", " ")


def text(key: str, value: Value) -> str:
    """A value with the unit that its key ends in.

    Example:
        >>> text("cap_bytes", 16_000_000), text("claimed_bpb", 1.25), text("seeds", [1, 2])
        ('16,000,000 bytes', '1.25 BPB', '1, 2')
    """
    unit = UNITS.get(key.rpartition("_")[2], "")
    shown = _bare(value, grouped=unit == "bytes" or "tokens" in key)
    return f"{shown} {unit}" if unit and shown else shown


def _bare(value: Value, *, grouped: bool = False) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if grouped else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if grouped and value == int(value) else f"{value:.{DIGITS}g}"
    return _compound(value, grouped=grouped)


def _compound(value: str | list[Value] | dict[str, Value], *, grouped: bool) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_bare(member, grouped=grouped)}" for key, member in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - ITEMS_SHOWN} more" if len(value) > ITEMS_SHOWN else ""
        return ", ".join(_bare(item, grouped=grouped) for item in value[:ITEMS_SHOWN]) + more
    return value


def _row_dicts(value: Value) -> list[dict[str, Value]]:
    """The rows, when a value is a list of them."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    return rows if isinstance(value, list) and rows and len(rows) == len(value) else []


def _rows(title: str, rows: Sequence[Mapping[str, Value]]) -> Rows:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [tuple(text(key, row[key]) if key in row else "-" for key in keys) for row in rows[:ROWS_SHOWN]]
    return Rows(title, tuple(label(key) for key in keys), tuple(cells), max(len(rows) - ROWS_SHOWN, 0))
