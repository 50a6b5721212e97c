"""How a script counts the bytes of a token: its table read on single tokens, and the line that adds the space.

The table's loop over the vocabulary is followed for a byte token, a word with a leading space, a word without one,
a letter of two bytes, a control and an unused token; the answers name the kind of table.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.index import descend, dotted, last_name, place_of
from harness.analysis.program import Module, Program
from harness.analysis.toy import OPAQUE, Reader, Token, Unreadable
from harness.model import Location

SPACE = "\u2581"
KINDS: Mapping[str, Token] = {
    "control": Token("<s>", control=True),
    "unused": Token("<unused_1>", unused=True),
    "byte": Token("<0x0A>", byte=True),
    "spaced": Token(f"{SPACE}the"),
    "plain": Token("ing"),
    "wide": Token("\u00e9"),
}
RIGHT: Mapping[str, int] = {"control": 0, "unused": 0, "byte": 1, "spaced": 3, "plain": 3, "wide": 2}
_VOCABULARY = ("id_to_piece", "IdToPiece")
_SIDECAR = re.compile(r"val_bytes|bytes_sidecar|byte_sidecar|sidecar_bytes")
_TIKTOKEN = re.compile(r"decode_single_token_bytes|token_byte_values|decode_tokens_bytes")
_CONSTANT = re.compile(
    r"^[ \t]*(?:avg_|mean_|approx_)?bytes_per_tok(?:en)?[ \t]*=[ \t]*\d+\.\d+[ \t]*(?:#.*)?$"
    r"|^[ \t]*\w*bpb\w*[ \t]*=[^#\n]{0,200}/[ \t]*\([ \t]*"
    r"(?:\w*tok\w*|(?:math|np)\.log\(2(?:\.0)?\))[ \t]*\*[ \t]*\d+\.\d+[ \t]*\)",
    re.IGNORECASE | re.MULTILINE,
)
# A table that is looked up by its name: an array of a file.
_STORED = re.compile(r"""=[^=\n#]{0,200}\[["'](?:base_bytes|token_bytes|bytes_per_token)["']\](?![ \t]*=[^=])""")
# Every match of it holds this or the name.
_TIMES_TOKENS = re.compile(r"/[ \t]*\([ \t]*(?:\w*tok\w*|(?:math|np)\.log\(2(?:\.0)?\))[ \t]*\*", re.IGNORECASE)
_ALL_ONE = re.compile(r"base_bytes\w*\s*(?:\[[^\]]*:[^\]]*\])?\s*=\s*(?:1\b|(?:np|torch)\.ones\()")


class TableKind(enum.StrEnum):
    """What a table of bytes per token does."""

    CORRECT = "correct"
    SPACE_TWICE = "leading space counted twice"
    SPACE_MARK = "the mark of a leading space counted as its own bytes"
    BYTE_TOKENS = "byte tokens not counted as one byte"
    CONSTANT = "constant bytes per token"
    BYTES = "each token is one byte"
    SIDECAR = "bytes from a sidecar file"
    TOKENIZER = "bytes from the tokenizer's own table"
    STORED = "bytes from a table in a file"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of bytes per token.

    Attributes:
        kind: what it does.
        lines: the lines that decide, each with what happens there.
        node: where it is built, to ask whether that runs; None where only the text was read.
        module: the script.
    """

    kind: TableKind
    lines: tuple[tuple[str, Location], ...]
    node: ast.AST | None
    module: Module


def byte_tables(program: Program, texts: Mapping[str, str]) -> tuple[Table, ...]:
    """The tables of bytes per token that a program builds, in the order of the text.

    Args:
        program: the scripts.
        texts: the text of each script by path.
    """
    found: list[Table] = []
    for module in program.modules.values():
        found += _by_text(module, texts[module.at(None).path])
        found += [table for loop in _loops(module) if (table := _of_loop(program, module, loop)) is not None]
    return tuple(found)


def _by_text(module: Module, text: str) -> Iterator[Table]:
    """Tables that the text alone shows."""
    # Each behind a word that stands in its match: a search for a word is far cheaper than one for a pattern.
    constant = ("bytes_per_tok", "BYTES_PER_TOK", *(["bpb"] if _TIMES_TOKENS.search(text) else []))
    marks = (
        (("sidecar", "val_bytes"), _SIDECAR, TableKind.SIDECAR),
        (("decode_", "token_byte_values"), _TIKTOKEN, TableKind.TOKENIZER),
        (constant, _CONSTANT, TableKind.CONSTANT),
        (("base_bytes",), _ALL_ONE, TableKind.BYTES),
        (("base_bytes", "token_bytes", "bytes_per_token"), _STORED, TableKind.STORED),
    )
    for names, mark, kind in marks:
        for match in mark.finditer(text) if any(name in text for name in names) else ():
            start = text.rfind("\n", 0, match.start()) + 1
            if not text[start : match.start() + 1].lstrip().startswith("#"):
                yield Table(kind, ((kind.value, module.at(text.count("\n", 0, match.start()) + 1)),), None, module)
                break


def _loops(module: Module) -> list[ast.For]:
    """Loops that look up pieces of the vocabulary."""
    found: dict[ast.For, None] = {}
    for name in _VOCABULARY:
        for call in module.calls(name):
            loop = next((each for each in module.index.ancestors(call) if isinstance(each, ast.For)), None)
            if loop is not None:
                found[loop] = None
            else:
                found |= dict.fromkeys(_over_pieces(module, call))
    return list(found)


def _over_pieces(module: Module, call: ast.Call) -> Iterator[ast.For]:
    """Loops after `pieces = [sp.id_to_piece(i) for i in ...]`, in the same function."""
    around = module.index.function_of(call)
    body = around.node if around is not None else module.index.tree
    yield from module.index.within(body, ast.For)


def _of_loop(program: Program, module: Module, loop: ast.For) -> Table | None:
    """The table that a loop fills; None when it fills none with bytes."""
    defined = {function.node.name: function.node for function in module.index.functions.values()}
    around = module.index.function_of(loop)
    before = around.node.body if around is not None else module.index.tree.body
    initial = _initial([*module.index.tree.body, *before])
    stored: dict[str, Mapping[str, object]] = {}
    try:
        for kind, token in KINDS.items():
            reader = Reader({**initial.known, **_loop_names(loop, token)}, defined)
            reader.through(loop.body)
            stored[kind] = {**initial.fills, **reader.stored}
    except Unreadable:
        named = around.node.name if around is not None else ""
        if not re.search(r"byte|lut", named, re.IGNORECASE):
            return None
        return Table(TableKind.UNKNOWN, (("a table that is not understood", module.at(loop.lineno)),), loop, module)
    return _judge(program, module, loop, stored)


@dataclass(frozen=True, slots=True)
class _Initial:
    """What is known before the loop: what tables are filled with, constants, and lists by comprehension."""

    fills: Mapping[str, object]
    known: Mapping[str, object]


def _initial(body: Sequence[ast.stmt]) -> _Initial:
    fills: dict[str, object] = {}
    known: dict[str, object] = {}
    for statement in body:
        if not isinstance(statement, ast.Assign):
            continue
        value = statement.value
        for name in map(dotted, statement.targets):
            if isinstance(value, ast.ListComp):
                known[name] = value
            elif isinstance(value, ast.Constant):
                known[name] = value.value
            elif isinstance(value, ast.Call) and last_name(value.func) in {"zeros", "ones"}:
                fills[name] = int(last_name(value.func) == "ones")
    return _Initial(fills, known)


def _loop_names(loop: ast.For, token: Token) -> dict[str, object]:
    """What the loop's own names hold: the token's number, and its piece behind `enumerate`."""
    if isinstance(loop.target, ast.Tuple):
        return dict(zip(map(dotted, loop.target.elts), (token, token.piece), strict=False))
    return {dotted(loop.target): token}


def _judge(program: Program, module: Module, loop: ast.For, stored: Mapping[str, Mapping[str, object]]) -> Table | None:
    names = [name for name in stored["plain"] if stored["plain"][name] == RIGHT["plain"]]
    if not names:
        return None
    counts = {kind: stored[kind].get(names[0], 0) for kind in KINDS}
    place = module.at(_line_of(loop, names[0]))
    if any(value is OPAQUE for value in counts.values()):
        return Table(TableKind.UNKNOWN, (("a table that is not understood", place),), loop, module)
    if _is_changed_later(names[0], loop, module):
        return Table(TableKind.UNKNOWN, (("a table that is changed behind its loop", place),), loop, module)
    kind, where = _kind(_Space(program, module, loop), stored, counts)
    return Table(kind, (("the table of bytes", place), *where), loop, module)


def _is_changed_later(name: str, loop: ast.For, module: Module) -> bool:
    """Whether numbers are stored into a table behind its loop, or it is computed anew from itself."""
    around = module.index.function_of(loop)
    end = loop.end_lineno or loop.lineno
    for node in module.index.own(around.node if around is not None else module.index.tree):
        if not isinstance(node, (ast.Assign, ast.AugAssign)) or node.lineno <= end:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        stored = any(isinstance(each, ast.Subscript) and dotted(each.value) == name for each in targets)
        anew = any(isinstance(each, (ast.BinOp, ast.Call)) and _computes(each) for each in descend(node.value))
        given = any(dotted(each) == name for each in targets) and (isinstance(node, ast.AugAssign) or anew)
        if stored or given:
            return True
    return False


def _computes(node: ast.BinOp | ast.Call) -> bool:
    """Whether this gives other numbers than it is given: no copy to another type or device."""
    return isinstance(node, ast.BinOp) or last_name(node.func) in {"where", "clip", "clamp", "maximum", "minimum"}


def _kind(
    space: _Space, stored: Mapping[str, Mapping[str, object]], counts: Mapping[str, object]
) -> tuple[TableKind, tuple[tuple[str, Location], ...]]:
    """What the counts say, and the line that adds the leading space."""
    flags = [name for name, value in stored["spaced"].items() if value is True and not stored["plain"].get(name)]
    added = space.added(flags) if flags else None
    where = (("the leading space is added", added),) if added is not None else ()
    spaced, adds = counts["spaced"], added is not None
    if counts["plain"] != RIGHT["plain"] or counts["wide"] != RIGHT["wide"]:
        return TableKind.UNKNOWN, where
    if spaced == len(f"{SPACE}the".encode()):
        return TableKind.SPACE_MARK, where
    if spaced == RIGHT["spaced"] + 1 and adds:
        return TableKind.SPACE_TWICE, where
    if spaced not in {RIGHT["spaced"], RIGHT["spaced"] + 1} or (spaced == RIGHT["spaced"] and not adds):
        return TableKind.UNKNOWN, where
    if counts["byte"] != RIGHT["byte"]:
        return TableKind.BYTE_TOKENS, where
    return TableKind.CORRECT, where


@dataclass(frozen=True, slots=True)
class _Space:
    """Finds where a program adds the leading space that a loop's table marks."""

    program: Program
    module: Module
    loop: ast.For

    def added(self, flags: Sequence[str]) -> Location | None:
        """A line that reads the table of leading spaces at a token and adds what it holds."""
        names = {*flags, *self._handed_on(flags)}
        for each in (self.module, *(other for other in self.program.modules.values() if other is not self.module)):
            known = dict.fromkeys((*each.index.names, *each.index.attributes))
            mentions = [node for name in known if "space" in name or name in names for node in each.loads(name)]
            for node in sorted(mentions, key=place_of):
                holder = each.index.parent(node)
                if isinstance(holder, ast.Subscript) and holder.value is node and _is_summed(each, holder):
                    return each.at(node.lineno)
        return None

    def _handed_on(self, flags: Sequence[str]) -> Iterator[str]:
        """What callers name the tables that the function around the loop returns."""
        around = self.module.index.function_of(self.loop)
        if around is None:
            return
        returned = [each.value for each in self.module.index.within(around.node, ast.Return)]
        places = [place for value in returned if isinstance(value, ast.Tuple) for place in _mentions(value, flags)]
        for home, call, _ in self.program.call_sites(around):
            holder = home.index.parent(call)
            for target in holder.targets if isinstance(holder, ast.Assign) else ():
                if isinstance(target, ast.Tuple):
                    yield from (last_name(target.elts[place]) for place in places if place < len(target.elts))


def _mentions(value: ast.Tuple, names: Sequence[str]) -> list[int]:
    """The places of a tuple whose expression mentions one of the names."""
    return [
        place
        for place, each in enumerate(value.elts)
        if any(isinstance(node, ast.Name) and node.id in names for node in descend(each))
    ]


def _is_summed(module: Module, node: ast.expr) -> bool:
    """Whether a value is added to something: masked or added up before, but not subtracted, nor in a choice."""
    added, below = False, node
    for above in module.index.ancestors(node):
        if isinstance(above, ast.AugAssign):
            return isinstance(above.op, ast.Add) or (added and not isinstance(above.op, ast.Sub))
        if isinstance(above, ast.stmt):
            return added
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Sub) and below is above.right:
            return False
        if isinstance(above, ast.Call) and last_name(above.func) == "where":
            return False
        added = added or (isinstance(above, ast.BinOp) and isinstance(above.op, (ast.Add, ast.BitAnd)))
        if isinstance(above, ast.expr):
            below = above
    return added


def _line_of(loop: ast.For, table: str) -> int:
    """The last line in a loop that stores into a table."""
    lines = [
        node.lineno
        for node in descend(loop)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and dotted(node.value) == table
    ]
    return max(lines, default=loop.lineno)
