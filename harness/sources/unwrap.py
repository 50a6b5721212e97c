"""Packed scripts, unpacked without running them.

Counted code is often shipped compressed: `exec(lzma.decompress(base64.b85decode("...")))`, nested, written to a file
that is then run, or a stub that reads another file. What is run is worked out from the syntax tree by `payload`.
Nothing is imported or called on the script's behalf.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from harness.sources.decoders import DecodeError
from harness.sources.fstrings import FSTRINGS_SINCE, has_fstring, parse_newer
from harness.sources.payload import Payload
from harness.sources.payloadsyntax import leading
from harness.sources.payloadvalues import ReadFile, UnknownPayloadError
from harness.sources.pythontext import unix

LAYERS_LIMIT = 12
DOTS_LIMIT = 12
# A syntax tree takes hundreds of times the memory of its text.
PARSED_LIMIT_CHARACTERS = 2 * 1024 * 1024
# No line of code that people write is this long; a payload is.
PAYLOAD_LINE_CHARACTERS = 8_000
_TOO_LONG = f"it unpacks to more than {PARSED_LIMIT_CHARACTERS:,} characters, which are not parsed"
_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+([\w.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A script's text under its wrappers.

    Attributes:
        text: the innermost text.
        layers: what was unpacked, outermost first (`("base85", "lzma")`); empty for plain source.
        texts: the text as shipped and after each unpacking, outermost first.
        line: line of the shipped text that unpacks the first layer; None for plain source.
        problem: why a wrapper could not be unpacked, or "".
        module: the syntax tree of `text`, or the error that says why there is none.
        newer: True when a text is valid only in a Python later than the running one.
    """

    text: str
    layers: tuple[str, ...]
    texts: tuple[str, ...]
    line: int | None
    problem: str
    module: ast.Module | SyntaxError
    newer: bool = False


def parse(text: str) -> ast.Module:
    """Python's own parser, silent about doubtful escapes.

    Raises:
        SyntaxError: the text is no Python of this version (also for null bytes and absurd nesting).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(f"cannot be parsed: {str(error)[:80] or type(error).__name__}") from error


def unwrap(text: str, name: str, read_file: ReadFile) -> Unpacked:
    """Unpack a script until plain source is left.

    Args:
        text: the script as shipped.
        name: its file name, which stubs use to find their neighbour.
        read_file: another file of the folder, by its path from the script's directory, or None.
    """
    layers: tuple[str, ...] = ()
    texts, first_line, problem = [text], None, ""
    module, newer = _parsed(text)
    while isinstance(module, ast.Module) and len(layers) < LAYERS_LIMIT:
        payload = Payload(leading(module.body), name, read_file)
        calls = list(payload.runs())
        if not calls:
            break
        first_line = first_line or calls[0][0].lineno
        try:
            inner = _joined(work() for _, work in calls) + _rest(module, text)
            _refuse_bundle(inner, payload.modules())
        except (UnknownPayloadError, DecodeError, RecursionError) as error:
            problem = str(error) or "it nests too deeply"
            break
        text = unix(_checked(inner))
        layers = (*layers, *(payload.workshop.layers or ("exec",)))[:LAYERS_LIMIT]
        texts.append(text)
        module, inner_newer = _parsed(text)
        newer = newer or inner_newer
        read_file = payload.read_file
    if not problem and isinstance(module, ast.Module) and _is_still_packed(module, text):
        problem, first_line = "it holds a payload, but nothing in it shows how that is run", first_line or 1
    return Unpacked(text, layers, tuple(texts), first_line, problem, module, newer)


def _parsed(text: str) -> tuple[ast.Module | SyntaxError, bool]:
    """The syntax tree or the error, and whether it took a syntax newer than the running Python's."""
    try:
        return parse(text), False
    except SyntaxError as error:
        if sys.version_info >= FSTRINGS_SINCE or not has_fstring(text):
            return error, False
        try:
            return parse_newer(text, parse), True
        except SyntaxError as second:
            return _first_of(text, error, second), False


def _first_of(text: str, error: SyntaxError, second: SyntaxError) -> SyntaxError:
    """The error that is one in both syntaxes and comes first: the older parser stumbles over f-strings too."""
    line = error.lineno or 1
    lines = text.split("\n")[line - 1 : max(error.end_lineno or line, line)]
    older = line < (second.lineno or 1) and not any(has_fstring(each) for each in lines)
    return error if older and "f-string" not in (error.msg or "") else second


def _checked(text: str) -> str:
    if len(text) > PARSED_LIMIT_CHARACTERS:
        raise UnknownPayloadError(_TOO_LONG)
    return text


def _joined(pieces: Iterable[str]) -> str:
    """Texts that are run one after another, as one: any number of them may be the same long one."""
    taken: list[str] = []
    size = 0
    for piece in pieces:
        size += len(_checked(piece)) + 1
        if size > PARSED_LIMIT_CHARACTERS + 1:
            raise UnknownPayloadError(_TOO_LONG)
        taken.append(piece)
    return "\n".join(taken)


def _rest(module: ast.Module, text: str) -> str:
    """The functions and classes that follow what is run, with all after them: they belong to the same program."""
    after = module.body[len(leading(module.body)) :]
    if not after:
        return ""
    decorators: list[ast.expr] = getattr(after[0], "decorator_list", [])
    first = min([after[0].lineno, *(decorator.lineno for decorator in decorators)])
    return "\n" + "\n".join(text.split("\n")[first - 1 :])


def _refuse_bundle(text: str, written: frozenset[str]) -> None:
    """A program whose modules are in the payload too is not the text that is run alone."""
    imported: set[str] = set()
    for statement in _IMPORT.finditer(text) if written else ():
        parts = statement[1].split(".")
        # A file `a.py` is what `import a.b` takes first.
        imported.update(".".join(parts[:count]) for count in range(1, min(len(parts), DOTS_LIMIT) + 1))
    for name in sorted(imported & written)[:1]:
        raise UnknownPayloadError(f"it imports {name[:80]} from its own payload, which is not read together with it")


def _is_still_packed(module: ast.Module, text: str) -> bool:
    """Whether a script without any function or class holds one very long line."""
    return len(leading(module.body)) == len(module.body) and any(
        len(line) > PAYLOAD_LINE_CHARACTERS for line in text.split("\n")
    )
