"""F-strings newer than the running Python, read into an ordinary tree."""

from __future__ import annotations

import ast
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources.fstrings import DEPTH_LIMIT, has_fstring, parse_newer
from harness.sources.script import read
from harness.sources.unwrap import parse


def shape(tree: ast.AST) -> str:
    return ast.dump(tree).replace(", type_params=[]", "")


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("""f"{d["k"]}" """, """f"{d['k']}" """),
        ("""f'{",".join(f'{x:>{w['n']}}' for x in y)}' """, '''f"""{','.join(f"{x:>{w['n']}}" for x in y)}""" '''),
        ('f"""{"a"}{d["k"]!r:>{w["n"]}}"""', '''f"""{'a'}{d['k']!r:>{w['n']}}"""'''),
        ("""rf"\\{d["k"]}\\d" """, """rf"\\{d['k']}\\d" """),
        ("""f"\\N{BULLET}{{}}{d["k"]}" """, """f"\\N{BULLET}{{}}{d['k']}" """),
        ("""f"{x}" "plain {y}" f"{d["k"]}" """, """f"{x}" "plain {y}" f"{d['k']}" """),
        ("""f"{a if b != "c" else d[1:2]}" """, """f"{a if b != 'c' else d[1:2]}" """),
        ("""f"{"}"}{'{'}" """, """f"{'}'}{'{'}" """),
    ],
)
def test_the_tree_is_that_of_the_older_spelling(newer: str, older: str) -> None:
    assert shape(parse_newer(newer, parse)) == shape(parse(older))


def test_lines_keep_their_numbers() -> None:
    text = 'a = f"{\n  d["k"]  # why "so"\n}"\nb = f"""\n{x["y"]}"""\nc = f"{"\\n".join(z)}"; e = 1\n'
    tree = parse_newer(text, parse)
    found = {node.id: node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert found == {"a": 1, "d": 2, "b": 4, "x": 5, "c": 6, "z": 6, "e": 6}
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Subscript)] == [2, 5]


@pytest.mark.parametrize(
    "text",
    [
        'f"{x["k"}"',
        'f"{}" f"{d["k"]}"',
        'f"{"a"',
        'f"{d["k"]',
        'f"}{d["k"]}"',
        'f"{d["k"])}"',
        'f"{(d["k"]}"',
        'f"{d["k"]!}"x"',
        'f"{"a" = 1; y}"',
        'f"{d["k"]:\n}"',
        'x = "never ends\nf"{d["k"]}"',
        "".join('f"{' for _ in range(DEPTH_LIMIT + 3)) + "1" + "".join('}"' for _ in range(DEPTH_LIMIT + 3)),
    ],
)
def test_what_is_an_error_in_every_syntax(text: str) -> None:
    with pytest.raises(SyntaxError):
        parse_newer(text, parse)


def test_names_in_the_text_are_not_taken_for_placeholders() -> None:
    tree = parse_newer('_field0 = 1\nf"{_field0}{d["k"]}"', parse)
    assert [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)].count("_field0") == 2


def test_an_error_behind_newer_f_strings_is_certain_and_has_its_line() -> None:
    found = read("train_gpt.py", 'x = f"{d["k"]}"\ny = 1\n| 0  N/A  1234 |\n', 10, lambda _name: None)
    assert (found.error_line, found.undecided, found.newer) == (3, False, False)


def test_a_script_in_newer_syntax_has_a_tree() -> None:
    found = read("train_gpt.py", 'import gone\nx = f"{d["k"]}"\n', 10, lambda _name: None)
    assert found.syntax_error == ""
    assert found.newer is (sys.version_info < (3, 12))
    assert found.imports == (("gone", 1),)


@given(
    st.lists(st.sampled_from(["f", '"', "'", "{", "}", "x", "(", ")", "\\", "\n", ":", "!r", '"""', "#"]), max_size=30)
)
def test_any_text_is_a_tree_or_a_syntax_error(words: list[str]) -> None:
    text = "".join(words)
    try:
        tree = parse_newer(text, parse)
    except SyntaxError:
        return
    assert isinstance(tree, ast.Module)
    assert has_fstring(text) or shape(tree) == shape(parse(text))
