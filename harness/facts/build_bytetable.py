"""Tables of bytes per token, found in the code and taken together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.analysis import bytetable
from harness.analysis.bytetable import TableKind
from harness.analysis.reach import Life, Reach
from harness.facts.bytetable import ByteTable, ByteTableFacts
from harness.facts.code import Code, CodeBase
from harness.model import Fact, Located, Location, Missing

# A sidecar, where the code reads one, stands before the table that it keeps for other data.
_FIRST = (
    TableKind.SPACE_TWICE,
    TableKind.SPACE_MARK,
    TableKind.CONSTANT,
    TableKind.BYTE_TOKENS,
    TableKind.SIDECAR,
    TableKind.CORRECT,
    TableKind.TOKENIZER,
    TableKind.BYTES,
)
_TOKENIZES = re.compile(r"\bsp\w*\.encode\(|\.encode_as_ids\(|EncodeAsIds\(|tokenizer\.encode\(")
_TRANSFORMS = re.compile(
    r"(?:\.casefold\(\)|unicodedata\.normalize\(|\b(?:text|doc|document|raw|content)\w*\.lower\(\))"
)
# Of which every match holds one.
_HINTS = ("casefold", "unicodedata", ".lower()")


def build_bytetable(code: CodeBase, reached: Reach | None) -> ByteTableFacts:
    """The byte tables of a folder's code.

    Args:
        code: the scripts.
        reached: what of the program runs; None where there is no program.
    """
    transformed = tuple(place for each in code.scripts.values() for place in _transformed(each))
    program = code.program
    if program is None or reached is None:
        reason = "the training script cannot be parsed" if code.entry else "which script trains cannot be told"
        return ByteTableFacts(Missing(reason, Location(code.entry or ".")), (), transformed)
    texts = {path: each.script.text for path, each in code.scripts.items()}
    tables = tuple(_table(table, reached) for table in bytetable.byte_tables(program, texts))
    return ByteTableFacts(_together(tables, program.entry.at(None)), tables, transformed)


def _table(table: bytetable.Table, reached: Reach) -> ByteTable:
    dead = table.node is not None and reached.of(table.node, table.module).life is Life.DEAD
    return ByteTable(table.kind.value, tuple(Located(what, place) for what, place in table.lines), not dead)


def _together(tables: Sequence[ByteTable], entry: Location) -> Fact[str]:
    """One kind for all tables that run; a wrong one beside a right one decides nothing."""
    running = [table for table in tables if table.runs]
    # Lengths of pieces are kept for other ends too; the denominator's table goes with a leading space that is added.
    stored = next((table for table in running if table.kind == TableKind.STORED), None)
    if stored is not None:
        return Missing("a table of bytes per token is read from a file", stored.places[0].location)
    spaced = [table for table in running if len(table.places) > 1]
    running = [table for table in running if table in spaced or table.kind == TableKind.SIDECAR] if spaced else running
    found = {table.kind: table for table in reversed(running)}
    kinds = [kind.value for kind in _FIRST if kind.value in found]
    if not kinds:
        reason = (
            "the table of bytes per token is not understood" if running else "no table of bytes per token was found"
        )
        return Missing(reason, running[0].places[0].location if running else entry)
    wrong = kinds[0] in {kind.value for kind in _FIRST[:4]}
    if wrong and len(kinds) > 1:
        return Missing(f"the code has several tables: {', '.join(kinds)}", found[kinds[0]].places[0].location)
    return Located(kinds[0], found[kinds[0]].places[-1].location)


def _transformed(code: Code) -> Iterator[Location]:
    """Lines of a script that tokenizes text, where it changes the text first."""
    text = code.script.text
    if not any(hint in text for hint in _HINTS):
        return
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if _transforms(line)]
    if lines and _TOKENIZES.search(text):
        yield from (code.at(number) for number, line in lines if not line.lstrip().startswith("#"))


def _transforms(line: str) -> bool:
    return any(hint in line for hint in _HINTS) and _TRANSFORMS.search(line) is not None
