"""The scripts of a folder as code that analyses can ask: each parsed once, indexed once, on first use."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.index import Index
from harness.model import Location
from harness.sources.script import ParsedScript


class Code:
    """One parsed script and the index of its syntax tree."""

    def __init__(self, script: ParsedScript) -> None:
        self.script = script

    @functools.cached_property
    def index(self) -> Index:
        """The index; empty where the script does not parse."""
        return Index(self.script.tree)

    @property
    def parses(self) -> bool:
        """Whether there is a syntax tree to ask."""
        return bool(self.script.tree.body)

    def at(self, line: int | None) -> Location:
        """A line of the innermost text as a place in the folder, with the unpacking layers."""
        return Location(self.script.path, line, layer=self.script.layer)


@dataclass(frozen=True, slots=True)
class CodeBase:
    """All scripts of a folder by path; `entry` is the training script's path, or "" where it cannot be told."""

    scripts: dict[str, Code]
    entry: str

    @property
    def main(self) -> Code | None:
        """The training script, when it is known and parses."""
        code = self.scripts.get(self.entry)
        return code if code is not None and code.parses else None


def code_base(parsed: Sequence[ParsedScript], entry: str) -> CodeBase:
    """The parsed scripts as code."""
    return CodeBase({script.path: Code(script) for script in parsed}, entry)
