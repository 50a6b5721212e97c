"""Lines of a folder quoted for a report: those that findings name with their neighbours, those of facts alone."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence

from harness.model import Excerpt, HarnessError, Location, Value
from harness.sources import pythontext
from harness.sources.folder import LOG_LIMIT_BYTES, Folder, decode
from harness.sources.unwrap import unwrap

CONTEXT_LINES = 3
PLACES_LIMIT = 400
FILES_LIMIT = 40
# Unpacking costs much more than reading.
PACKED_LIMIT = 8
LINE_LIMIT_CHARACTERS = 300


def read(folder: Folder, around: Sequence[Location], alone: Sequence[Location]) -> dict[str, Excerpt]:
    """Quote a folder.

    Args:
        folder: the walked folder; nothing in it is executed.
        around: places whose neighbouring lines are quoted too; they come first where there is too much to quote.
        alone: places whose own line is enough.

    Returns:
        Excerpts by `Location.file`.
    """
    wanted: dict[str, list[tuple[Location, int]]] = {}
    named = [(place, CONTEXT_LINES) for place in around] + [(place, 0) for place in alone]
    for place, context in list(dict.fromkeys(named))[:PLACES_LIMIT]:
        wanted.setdefault(place.file, []).append((place, context))
    packed = [name for name, places in wanted.items() if places[0][0].layer]
    too_many = set(packed[PACKED_LIMIT:])
    found: dict[str, Excerpt] = {}
    for name, places in list(wanted.items())[:FILES_LIMIT]:
        quoted = None if name in too_many else _file(folder, places)
        if quoted is not None:
            found[name] = quoted
    return found


def places_in(value: Value, above: int = 6) -> list[Location]:
    """The places of a JSON-ready tree of facts that have a line, `above` levels deep, without settings."""
    return list(dict.fromkeys(_places_in(value, above)))


def _places_in(value: Value, above: int) -> Iterator[Location]:
    if isinstance(value, list) and above:
        for element in value:
            yield from _places_in(element, above - 1)
    elif isinstance(value, dict):
        place = _place(value)
        if place is not None:
            yield place
        for key, member in value.items() if above else ():
            if key not in {"config", "scores", "environment"}:
                yield from _places_in(member, above - 1)


def _place(value: Mapping[str, Value]) -> Location | None:
    path, line, pointer, layer = (value.get(key) for key in ("path", "line", "pointer", "layer"))
    if not isinstance(path, str) or not isinstance(line, int) or "value" not in value:
        return None
    return Location(path, line, str(pointer) if pointer is not None else None, str(layer or ""))


def _file(folder: Folder, places: Sequence[tuple[Location, int]]) -> Excerpt | None:
    """The quoted lines of one text; None where it cannot be read, or where no place in it has a line."""
    first = places[0][0]
    try:
        data = folder.read(first.path, LOG_LIMIT_BYTES)
        text = pythontext.read(data).text if first.path.endswith(".py") else decode(data)
        text, anchor = _layer(folder, first, text) if first.layer else (text, None)
    except HarnessError:
        return None
    numbers: set[int] = set()
    for place, context in places:
        if place.line is not None:
            numbers.update(range(place.line - context, place.line + context + 1))
    quoted = _lines(text, numbers)
    return Excerpt(quoted, anchor) if quoted or anchor else None


def _lines(text: str, numbers: set[int]) -> dict[int, str]:
    """The lines of those numbers; the text is not split, since it may be long."""
    last = max(numbers, default=0)
    lines = itertools.islice(io.StringIO(text, newline="\n"), last)
    return {number: _cut(line) for number, line in enumerate(lines, start=1) if number in numbers}


def _layer(folder: Folder, place: Location, text: str) -> tuple[str, int | None]:
    """The innermost text of a packed script and the line that unpacks it.

    Raises:
        HarnessError: the text does not unpack the way that the place says.
    """
    beside = place.path.rpartition("/")[0]

    def neighbour(name: str) -> bytes | None:
        path = f"{beside}/{name}" if beside else name
        return folder.read(path) if path in folder.files else None

    unpacked = unwrap(text, place.path.rpartition("/")[2], neighbour)
    if not unpacked.layers:
        raise HarnessError(f"{place.path}: not packed")
    return unpacked.text, unpacked.line


def _cut(line: str) -> str:
    line = line.rstrip("\r\n").rpartition("\r")[2].expandtabs(4)
    return line if len(line) <= LINE_LIMIT_CHARACTERS else line[: LINE_LIMIT_CHARACTERS - 1] + "…"
