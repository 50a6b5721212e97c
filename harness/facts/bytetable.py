"""How the code counts the bytes that val_bpb divides by."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Fact, Located, Location


@dataclass(frozen=True, slots=True)
class ByteTable:
    """One table of bytes per token that the code builds.

    Attributes:
        kind: what it does, in words: `correct`, `leading space counted twice`, `bytes from a sidecar file` ...
        places: the lines that decide, each with what happens there.
        runs: False when the run's configuration switches it off.
    """

    kind: str
    places: tuple[Located[str], ...]
    runs: bool


@dataclass(frozen=True, slots=True)
class ByteTableFacts:
    """All of them.

    Attributes:
        kind: what the tables that run do, taken together; Missing where that is not known.
        tables: every table, in the order of the code.
        transformed: lines that change the text before it is tokenized, in scripts that prepare data.
    """

    kind: Fact[str]
    tables: tuple[ByteTable, ...]
    transformed: tuple[Location, ...]
