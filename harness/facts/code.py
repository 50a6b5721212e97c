"""The scripts of a folder as code that analyses can ask: each parsed once, indexed once, on first use."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.index import Index
from harness.analysis.program import Module, Program
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

    @functools.cached_property
    def module(self) -> Module:
        """The script as a module of a program."""
        return Module(self.index, self.at)

    def imported(self) -> Module | None:
        """The script as a module that another one imports; None where it does not parse."""
        return self.module if self.parses else None

    @property
    def parses(self) -> bool:
        """Whether there is a syntax tree to ask."""
        return bool(self.script.tree.body)

    def at(self, line: int | None) -> Location:
        """A line of the innermost text as a place in the folder, with the unpacking layers."""
        return Location(self.script.path, line, layer=self.script.layer)


@dataclass(frozen=True)
class CodeBase:
    """All scripts of a folder by path; `entry` is the training script's path, or "" where it cannot be told."""

    scripts: dict[str, Code]
    entry: str

    @functools.cached_property
    def program(self) -> Program | None:
        """The training script with the modules of the folder that it imports; None where it does not parse."""
        main = self.main
        if main is None:
            return None
        others = {path.rpartition("/")[2].removesuffix(".py"): code for path, code in self.scripts.items()}
        return Program(main.module, {stem: code.imported for stem, code in others.items() if code is not main})

    def release(self) -> None:
        """Forget every analysis: they name each other in circles, and the syntax trees would wait for the collector."""
        for code in self.scripts.values():
            for known in (vars(code).get("module"), vars(code).get("index"), code):
                if known is not None:
                    vars(known).clear()
        vars(self).clear()

    @property
    def main(self) -> Code | None:
        """The training script, when it is known and parses."""
        code = self.scripts.get(self.entry)
        return code if code is not None and code.parses else None


def code_base(parsed: Sequence[ParsedScript], entry: str) -> CodeBase:
    """The parsed scripts as code."""
    return CodeBase({script.path: Code(script) for script in parsed}, entry)
