"""The events of a run as they are read: what the script wrote into the channel itself may be anything.

What the experiments read of an event is held against `events.schema.json`; ranges have to lie in the text, and come to
no more places than memory has room for. Numbers are finite and of an ordinary size, texts can be written out again.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from harness.sources import schemas, shapes

NUMBER_LIMIT_DIGITS: Final = 16
# Of ranges, in one event and in all events of a run.
EVENT_PLACES_LIMIT: Final = 1 << 22
PLACES_LIMIT: Final = 1 << 24
RANGES: Final = ("positions", "inputs", "learned", "apart", "missing", "doubled")
SOURCE: Final = "source"
# What no schema of its own describes is only looked at as a whole.
SHARED: Final = frozenset({"number", "ranges", "known", SOURCE})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@functools.cache
def _described() -> Mapping[str, tuple[frozenset[str], shapes.Check]]:
    """The keys of each kind of event that are described, and what they must be."""
    document = schemas.load("events")
    kinds: Mapping[str, Any] = document["$defs"]
    return {
        kind: (frozenset(schema["properties"]), shapes.compiled(schema, document))
        for kind, schema in kinds.items()
        if "properties" in schema
    }


class Reader:
    """Reads the events of one run.

    Args:
        tokens: of the validation text.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens, self._left = tokens, PLACES_LIMIT

    def event(self, line: str) -> Mapping[str, Any] | None:
        """The event of a line; None where it is damaged."""
        event = _parsed(line)
        if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
            return None
        if not isinstance(event.get("variant", ""), str) or not _is_rank(event.get("rank", 0)):
            return None
        if event["kind"] not in SHARED and event["kind"] in _described():
            return event if self._valid(event["kind"], event) else None
        return event

    def _valid(self, kind: str, event: Mapping[str, Any]) -> bool:
        keys, check = _described()[kind]
        if not check({name: event[name] for name in keys & event.keys()}):
            return False
        if kind == "sources":
            shape = _described()[SOURCE][1]
            told = event["sources"]
            if not all(shape({"at": at, "targets": targets, "learned": early}) for at, targets, early in told):
                return False
            # What is not of the text stands at -1.
            known = self._within([early for _, _, early in told], 0, self._tokens)
            return known and self._within([targets for _, targets, _ in told], -1, self._tokens)
        if kind == "account":
            # These are steps, not places.
            return self._within([event.get("straight", []), event.get("pieces", [])], 0, len(event["steps"]))
        return self._within([event[name] for name in RANGES if name in keys and name in event], 0, self._tokens)

    def _within(self, found: Iterable[Sequence[tuple[int, int]]], least: int, most: int) -> bool:
        """Whether ranges lie between two ends, and there is room for them."""
        places = 0
        for begin, end in chain.from_iterable(found):
            if not least <= begin < end <= most:
                return False
            places += end - begin
        if places > min(EVENT_PLACES_LIMIT, self._left):
            return False
        self._left -= int(places)
        return True


def _is_rank(value: object) -> bool:
    return type(value) is int and -1 <= value < 1024


def _parsed(line: str) -> object:
    try:
        value = json.loads(line, parse_int=_whole, parse_float=_finite, parse_constant=_refused)
        if _SURROGATE.search(line):
            # One without its other half cannot be written out.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    made: object = value
    return made


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > NUMBER_LIMIT_DIGITS:
        raise ValueError("a number of too many digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return value


def _refused(name: str) -> float:
    raise ValueError(name)
