"""`ledger.jsonl`: what a script scored, learned from and reached for, one JSON object a line, in order.

The harness writes it from what came through the channel; each line is held against `ledger.schema.json` and against
the length of the text before it is written, and again when it is read.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harness.model import HarnessError
from harness.sources import schemas, shapes

NAME: Final = "ledger.jsonl"
TWO_RANKS_NAME: Final = "ledger-two-ranks.jsonl"
NAMES: Final = frozenset({NAME, TWO_RANKS_NAME})
HEADER: Final = "ledger"
SCHEMA: Final = "ledger/1"
LINE_LIMIT_CHARACTERS: Final = 8 << 20
RANGES: Final = ("positions", "inputs", "learned", "missing", "doubled")
SHARED: Final = frozenset({"number", "rank", "ranges", "words"})


@functools.cache
def _checks() -> Mapping[str, shapes.Check]:
    """What each kind of line must be."""
    document = schemas.load("ledger")
    return {kind: shapes.compiled(schema, document) for kind, schema in document["$defs"].items() if kind not in SHARED}


def kinds() -> frozenset[str]:
    """The kinds of lines but the first."""
    return frozenset(_checks()) - {HEADER}


def valid(line: object, tokens: int) -> bool:
    """Whether a line is as the schema describes, its ranges lie in the text, and each score has its number.

    Args:
        line: the line, parsed.
        tokens: tokens of the validation text.
    """
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return False
    check = _checks().get(line["kind"])
    if check is None or not check(line):
        return False
    if not all(0 <= begin < end <= tokens for name in RANGES for begin, end in line.get(name, ())):
        return False
    numbers = line.get("nll")
    return numbers is None or len(numbers) == sum(end - begin for begin, end in line["positions"])


def write(path: Path, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a ledger whole or not at all; the lines have been found valid.

    Raises:
        ValueError: the header is not valid: a fault of ours, not of the input.
    """
    if not valid(dict(header), header["tokens"]):
        raise ValueError(f"{path.name}: {header}")
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="ascii") as file:
        for line in (header, *lines):
            file.write(json.dumps(line, allow_nan=False) + "\n")
    partial.replace(path)


def read(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a ledger, the header first.

    Raises:
        HarnessError: it cannot be read, or a line is not valid; the message names it.
    """
    tokens = 0
    try:
        with path.open(encoding="ascii") as file:
            for number, text in enumerate(iter(lambda: file.readline(LINE_LIMIT_CHARACTERS), ""), 1):
                line = _parsed(text)
                tokens = _tokens(line) if number == 1 else tokens
                if not isinstance(line, dict) or not valid(line, tokens) or (number == 1) != (line["kind"] == HEADER):
                    raise HarnessError(f"{path}:{number}: not a line of a ledger")
                yield line
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path}: no readable ledger ({error})") from error


def _tokens(header: object) -> int:
    found = header.get("tokens") if isinstance(header, dict) else None
    return found if isinstance(found, int) else 0


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
