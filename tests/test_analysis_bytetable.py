"""Byte tables by what they give, however they are written."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.bytetable import TableKind, byte_tables
from harness.analysis.index import Index
from harness.analysis.program import Module, Program
from harness.model import Location

PATH = "train_gpt.py"
ADDED = """
def count(base, space, edge, tgt, prev):
    return base[tgt] + (space[tgt] & ~edge[prev])
base, space, edge = build(sp, 1024)
"""


def tables(source: str) -> list[TableKind]:
    text = textwrap.dedent(source)
    module = Module(Index(ast.parse(text)), lambda line: Location(PATH, line))
    return [table.kind for table in byte_tables(Program(module, {}), {PATH: text})]


def loop(body: str, added: str = ADDED) -> str:
    start = "def build(sp, n):\n    b = np.zeros(n)\n    s = np.zeros(n)\n    e = np.ones(n)\n    for i in range(n):\n"
    return start + textwrap.indent(textwrap.dedent(body), "        ") + "    return b, s, e\n" + added


CORRECT = """\
if sp.is_control(i) or sp.is_unused(i) or i >= limit: continue
if sp.is_byte(i):
    b[i] = 1
    continue
p = sp.IdToPiece(i)
s[i] = p.startswith("\u2581")
b[i] = len(p.lstrip("\u2581").encode())
"""


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (CORRECT.replace(" or i >= limit", ""), TableKind.CORRECT),
        (CORRECT.replace('p.lstrip("\u2581")', 'p.replace("\u2581", " ")'), TableKind.SPACE_TWICE),
        (CORRECT.replace('p.lstrip("\u2581")', "p"), TableKind.SPACE_MARK),
        (CORRECT.replace("b[i] = 1\n", "b[i] = len(sp.id_to_piece(i))\n"), TableKind.BYTE_TOKENS),
        (CORRECT.replace('p.lstrip("\u2581")', "mystery(p)"), None),
    ],
)
def test_a_table_is_read_on_single_tokens(body: str, kind: TableKind | None) -> None:
    assert tables(loop(body)) == ([kind] if kind else [])


def test_a_space_in_the_table_alone_is_counted_once() -> None:
    body = CORRECT.replace(" or i >= limit", "").replace('p.lstrip("\u2581")', 'p.replace("\u2581", " ")')
    alone = body.replace('s[i] = p.startswith("\u2581")\n', "")
    assert tables(loop(alone, added="")) == [TableKind.CORRECT]


def test_helpers_constants_and_comprehensions_are_followed() -> None:
    source = """
        YES = True
        def size(piece):
            if piece.startswith("\u2581"):
                return len(piece[1:].encode("utf-8"))
            return len(piece.encode("utf-8"))
        def byte_tables(sp, n):
            pieces = [sp.id_to_piece(i) for i in range(n)]
            b, s = np.zeros(n), np.zeros(n)
            for token, piece in enumerate(pieces):
                if sp.is_byte(token): b[token] = 1; continue
                if piece.startswith("\u2581"): space[token] = YES
                b[token] = size(piece)
        def count(b, space, tgt):
            return b[tgt] + space[tgt]
    """
    assert tables(source) == [TableKind.CORRECT]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("files = glob(root + '/fineweb_val_bytes_*.bin')", TableKind.SIDECAR),
        ("bytes_per_token = 3.72", TableKind.CONSTANT),
        ("bpb = bits / (tokens * 4.5)", TableKind.CONSTANT),
        ("val_bpb = loss / (math.log(2) * 2.35)", TableKind.CONSTANT),
        ("bpb = bits / (tokens * ratio)", None),
        ("base_bytes = torch.ones(vocab)", TableKind.BYTES),
        ("n = len(enc.decode_single_token_bytes(i))", TableKind.TOKENIZER),
        ("# bytes_per_token = 3.72", None),
        ('sizes = np.asarray(meta["base_bytes"], dtype=np.int16)', TableKind.STORED),
        ('meta["base_bytes"] = sizes', None),
    ],
)
def test_tables_that_the_text_shows(line: str, kind: TableKind | None) -> None:
    assert tables(line + "\nx = 1\n") == ([kind] if kind else [])


@given(st.lists(st.sampled_from(CORRECT.split("\n")), max_size=9))
def test_any_order_of_lines_ends_in_a_kind_or_in_nothing(lines: list[str]) -> None:
    source = loop(
        "\n".join(line.strip() if line.startswith(" ") else line.partition(":")[0] for line in lines) + "\npass\n"
    )
    try:
        ast.parse(source)
    except SyntaxError:
        return
    assert all(isinstance(kind, TableKind) for kind in tables(source))


def test_long_chains_of_branches_are_not_understood() -> None:
    branches = "".join(f"elif i == {n}:\n    b[i] = {n}\n" for n in range(300))
    assert tables(loop(f"p = sp.id_to_piece(i)\nif p == 'x':\n    b[i] = 1\n{branches}")) == []
