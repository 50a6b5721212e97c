"""What is in the record folder."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Fact, Located, Location


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """One regular file of the folder; `path` is relative, POSIX style."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Script:
    """One Python file of the folder.

    Attributes:
        path: relative path.
        size_bytes: bytes as shipped.
        layers: unpacking layers, outermost first (`("base85", "lzma")`); empty for plain source.
        parsed: Located(True) when it parses (in any supported syntax), Located(False) at the syntax error,
            Missing when it cannot be told (for example newer syntax than the parser knows).
        problem: why it does not parse, or "" .
        missing_modules: own modules (neither standard library nor an installable package) that it imports
            and that the folder does not ship, at the import.
        environment: environment keys it reads, with the default where it is a literal.
        texts: sha256 of the text as shipped and of each unpacked layer, newline-normalized like `Run.source`.
        newer_syntax: True when it parses only in Python 3.12 or later.
        undeclared_modules: those of the missing modules that nothing in the folder names as something to install, and
            that no changed search path can lead to.
    """

    path: str
    size_bytes: int
    layers: tuple[str, ...]
    parsed: Fact[bool]
    problem: str
    missing_modules: tuple[Located[str], ...]
    environment: tuple[Located[tuple[str, str | None]], ...]
    texts: tuple[str, ...] = ()
    newer_syntax: bool = False
    undeclared_modules: tuple[Located[str], ...] = ()


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """The folder as a package.

    Attributes:
        files: every regular file, sorted by path.
        refused: entries that were not read and why (links that leave the folder, devices, oversized).
        readme: path of the README, at its first line.
        manifest: path of the submission JSON.
        manifest_problems: what the schema rejects, each at its JSON pointer; or the parse error at its line.
        entry: the training script that the logs belong to.
        scripts: every Python file.
        logs: paths of the training logs.
    """

    files: tuple[ShippedFile, ...]
    refused: tuple[Located[str], ...]
    readme: Fact[str]
    manifest: Fact[str]
    manifest_problems: tuple[Located[str], ...]
    entry: Fact[Script]
    scripts: tuple[Script, ...]
    logs: tuple[Location, ...]
