"""What is read from scripts that are never executed."""

from __future__ import annotations

import ast
import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sources import script as scripts
from harness.sources.script import ParsedScript, could_be_newer_syntax, missing_modules, read


def parse(text: str, path: str = "train_gpt.py") -> ParsedScript:
    return read(path, text, len(text.encode()), lambda _name: None)


def test_environment_keys_with_defaults() -> None:
    found = parse(
        "import os\n"
        "seed = int(os.environ.get('SEED', 1337))\n"
        "rate = float(os.environ.get('RATE', -0.5))\n"
        "path = os.environ.get('DATA_PATH', './data')\n"
        "name = os.getenv('NAME')\n"
        "rank = os.environ['RANK']\n"
        "late = os.environ.get('LATE', str(seed))\n"
        "known = 'RANK' in os.environ\n"
    )
    assert found.environment == (
        ("SEED", "1337", 2),
        ("RATE", "-0.5", 3),
        ("DATA_PATH", "./data", 4),
        ("NAME", None, 5),
        ("RANK", None, 6),
        ("LATE", None, 7),
    )


def test_environment_through_a_helper() -> None:
    found = parse(
        "from os import environ\n"
        "def _env(key, default, kind=str):\n"
        "    value = environ.get(key, str(default))\n"
        "    return kind(value)\n"
        "class Settings:\n"
        "    layers = _env('NUM_LAYERS', 9, int)\n"
        "    wide = _env('WIDE', False)\n"
    )
    assert found.environment == (("NUM_LAYERS", "9", 6), ("WIDE", "False", 7))


def test_modules_of_its_own_that_are_not_shipped() -> None:
    text = (
        "import os, numpy as np\n"
        "import torch.nn.functional as F\n"
        "from context_parts import Layer\n"
        "from .neighbour import thing\n"
        "from shipped import other\n"
        "from package.inner import more\n"
        "import compiled\n"
    )
    shipped = [
        "train_gpt.py",
        "shipped.py",
        "package/inner.py",
        "compiled.cpython-311-x86_64-linux-gnu.so",
        "README.md",
    ]
    assert missing_modules(parse(text), shipped) == [("context_parts", 3), ("neighbour", 4)]


def test_optional_imports_are_not_missing() -> None:
    text = (
        "from typing import TYPE_CHECKING\n"
        "try:\n    import strange_kernels\nexcept ImportError:\n    strange_kernels = None\n"
        "if TYPE_CHECKING:\n    import strange_types\n"
        "if flag:\n    import strange_option\n"
        "if __name__ == '__main__':\n    import strange_main\n"
        "def f():\n    import strange_inner\n"
    )
    assert missing_modules(parse(text), []) == [("strange_main", 11), ("strange_inner", 13)]


def test_an_error_in_every_python_is_certain() -> None:
    found = parse("import os\n|   0  N/A  N/A   1234  C  python  1496MiB |\n")
    assert found.syntax_error
    assert (found.error_line, found.undecided) == (2, False)


@pytest.mark.parametrize(
    ("line", "newer"),
    [
        ('print(t"{d["k"]}")', True),
        ("type Pair = tuple[int, int]", True),
        ("def first[T](items: list[T]) -> T: ...", True),
        ("class Box[T]: ...", True),
        ("except ValueError, TypeError:", True),
        ("print 'hello'", False),
        ("<<<<<<< HEAD", False),
        ("x = = 1", False),
    ],
)
def test_what_a_newer_python_might_accept(line: str, *, newer: bool) -> None:
    error = SyntaxError("invalid syntax", ("f", 2, 1, line, 2, 5))
    assert could_be_newer_syntax(f"x = 1\n{line}\n", error) is newer


def test_a_string_that_never_ends_is_undecided_only_after_a_t_string() -> None:
    error = SyntaxError("unterminated string literal (detected at line 3)", ("f", 3, 1, "x", 3, 2))
    assert could_be_newer_syntax("a = t'{1}'\n\nb = 'x\n", error)
    assert not could_be_newer_syntax("a = 1\n\nb = 'x\n", error)


def test_environment_of_a_text_that_this_python_cannot_parse() -> None:
    found = parse("import os\nseed = int(os.environ.get('SEED', 1337)); n = os.environ.get('NAME','a b')\ndef f(:\n")
    assert found.syntax_error
    assert found.environment == (("SEED", "1337", 2), ("NAME", "a b", 2))


def test_packed_scripts_name_their_layers() -> None:
    data = base64.b85encode(zlib.compress(b"import os\nimport context_parts\n")).decode()
    found = parse(f"import zlib,base64\nexec(zlib.decompress(base64.b85decode('{data}')))\n")
    assert found.layers == ("base85", "zlib")
    assert found.layer == "zlib(base85)"
    assert found.unpacking_line == 2
    assert found.text.startswith("import os")
    assert missing_modules(found, []) == [("context_parts", 2)]


def test_what_cannot_be_unpacked_is_undecided() -> None:
    found = parse("exec(open('gone.py').read())\n")
    assert found.undecided
    assert "gone.py" in found.syntax_error
    assert found.error_line == 1


def test_an_empty_script_is_a_problem() -> None:
    found = parse(" \n")
    assert (found.syntax_error, found.error_line, found.undecided) == ("the file is empty", 1, False)


def test_giant_scripts_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "PARSED_LIMIT_CHARACTERS", 20)
    found = parse("x = 1\n" * 5)
    assert found.undecided
    assert found.syntax_error == "longer than 20 characters"


def test_long_chains_do_not_exhaust_the_stack() -> None:
    assert parse("import os\nos" + ".a" * 900 + "('x')\nos.environ.get('K' + 'L')\n").environment == ()


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    found = parse(text)
    assert found.texts[0] == text
    missing_modules(found, [])


_WORDS = st.sampled_from(
    ["import ", "os", ".environ", ".get(", "'K'", ")", "\n", "try:", "    ", "if x:", "exec(", "f'{", "def f(", ":"]
)


@given(st.lists(_WORDS, max_size=25))
def test_shuffled_python_is_read(words: list[str]) -> None:
    text = "".join(words)
    parsed = parse(text)
    try:
        ast.parse(text)
    except SyntaxError:
        assert parsed.syntax_error, "what Python refuses is said"
    else:
        assert parsed.undecided or not parsed.syntax_error or not text.strip(), "what Python takes is no error"
