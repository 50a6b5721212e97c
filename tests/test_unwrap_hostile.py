"""Wrappers of packed scripts that are made to hang, to fill the memory or to crash: each ends with a reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.sources.payload import Payload
from harness.sources.payloadsyntax import leading
from harness.sources.unwrap import PARSED_LIMIT_CHARACTERS, Unpacked, parse, unwrap
from tests.growth import RATIO_LIMIT, growth

NO_FILES: dict[str, str | bytes] = {}


def unpack(text: str) -> Unpacked:
    return unwrap(text, "train_gpt.py", NO_FILES.get)


# 31 lists in memory, and 2**30 texts for whoever writes them out.
SHARED = "import codecs, lzma, os\na=['x']\n" + "a=[a,a]\n" * 30


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("exec(open('f',a).read())", "which the folder does not hold"),
        ("for x in [a]: open('f','w').write('x')\nexec(x)", "no text"),
        ("for x in a:\n for y in x: open('f','w').write(y)\nexec(open('f').read())", "whose text cannot be worked out"),
        ("exec(open(os.path.join('f',a)).read())", "a path of something that is no text"),
        ("exec(open(a).read())", "on something unknown"),
        ("exec(codecs.decode(b'x',a))", "is not a decoder"),
        ("exec(lzma.decompress(b'x',lzma.FORMAT_RAW,None,a))", "no plain list"),
        ("exec(''.join(a))", "in a way that fails"),
    ],
)
def test_lists_that_share_their_items_are_not_written_out(end: str, problem: str) -> None:
    assert problem in unpack(SHARED + end).problem


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("exec(lzma.decompress(b'x',format=lzma.FORMAT_RAW,filters=['a']))", "no plain list"),
        ("exec(lzma.decompress(b'x',format=lzma.FORMAT_RAW,filters=7))", "no plain list"),
        (f"exec(lzma.decompress(b'x',format=lzma.FORMAT_RAW,filters=[{{'id':{9**30}}}]))", "is damaged"),
        ("exec(lzma.decompress(b'x',format=lzma.FORMAT_RAW,filters=[{'dict_size':1}]))", "is damaged"),
        (f"exec(lzma.decompress(b'x',format={9**30}))", "is damaged"),
        (f"exec(zlib.decompress(b'x',{9**30}))", "is damaged"),
        ("exec(zlib.decompress(b'x','15'))", "is damaged"),
        (f"exec(open(os.path.join('a',0x{'f' * 5_000})).read())", "a path of something that is no text"),
        (f"exec('a'.split('a',{9**30})[9])", "an item that is not there"),
        ("exec('a'.encode('ascii','namereplace'))", "in a way that fails"),
    ],
)
def test_options_that_are_not_plain_are_no_crash(statement: str, problem: str) -> None:
    assert problem in unpack(f"import lzma, os, zlib\n{statement}").problem


@pytest.mark.parametrize(
    "text",
    [
        "import base64\nfor x in base64.b64decode('a'): open('f','w').write(x)\nexec('y=1')",
        "import base64\nopen(base64.b64decode('a'),'w').write('x')\nexec('y=1')",
        "import base64\nif a: open(base64.b64decode('a'),'w').write('x')\nexec('y=1')",
    ],
)
def test_damaged_data_beside_the_payload_is_no_crash(text: str) -> None:
    assert unpack(text).text == "y=1"


@pytest.mark.parametrize(
    "text",
    [
        f"a='{'x' * 100_000}'\nb=a.join(a)\nexec(b)",
        "import os\np='a'\n" + "p=os.path.join(p,p)\n" * 60 + "exec(open(p).read())",
        "from pathlib import Path\np=Path('a')\n" + "p=Path(p,p)\n" * 60 + "exec(p.read_text())",
        f"a=[{'1,' * 50_000}]\n" + "exec(bytes(a))\n" * 10_000,
        f"a=[{chr(39) * 2},{f'{chr(39) * 2},' * 50_000}]\n" + "exec(''.join(a))\n" * 10_000,
    ],
)
def test_what_grows_is_paid_for(text: str) -> None:
    problem = unpack(text).problem
    assert "grows beyond what is worked out here" in problem or "are not parsed" in problem


def test_a_long_text_that_is_run_again_and_again_is_not_put_together() -> None:
    text = f"s='''{'#' * (PARSED_LIMIT_CHARACTERS // 2)}'''\n" + "exec(s)\n" * 10_000
    assert "are not parsed" in unpack(text).problem


def test_a_path_may_be_joined_from_files() -> None:
    text = "from pathlib import Path\nimport os\nexec(open(os.path.join('d', Path('f.txt'))).read())"
    assert unwrap(text, "train_gpt.py", {"d/f.txt": "x = 1"}.get).text == "x = 1"


def test_the_last_write_before_the_run_counts() -> None:
    first, second, last = (f"open('a','w').write('x={n}')" for n in (1, 2, 3))
    other, run, run_other = "open('b','w').write('y=1')", "exec(open('a').read())", "exec(open('b').read())"
    text = f"{first}\n{run}\n{other}\n{second}\n{run}\n{run_other}\n{last}\n"
    assert unpack(text).text == "x=1\nx=2\ny=1"


GROWING: dict[str, Callable[[int], str]] = {
    "writes and runs": lambda size: (
        "".join(f"open('f{n}','w').write('x=1')\n" for n in range(size))
        + "".join(f"exec(open('f{n}').read())\n" for n in range(size))
    ),
    "bindings and runs": lambda size: "a='x'\n" * size + "exec(a)\n" * size,
    "pieces that fail": lambda size: "s=1\n" + "s+='a'\n" * size + "s()\n" * size,
    "modules": lambda size: "".join(f"open('y{n}.py','w').write('1')\n" for n in range(size)) + "exec('import z\\n')",
    "loops": lambda size: (
        f"for i in [{'1,' * 50}]:\n open('f','w').write('x')\n if a:\n" + "  b=1\n" * size + "exec('x')"
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_the_cost_of_a_wrapper_follows_its_length(name: str) -> None:
    small, large = (partial(unpack, GROWING[name](size)) for size in (500, 2_000))
    assert growth(small, large) < RATIO_LIMIT


def test_a_loop_looks_for_writes_in_its_statements_once() -> None:
    body = parse("for i in [1,2,3]:\n open('f','w').write('x')\n if a:\n  b=1\n").body
    payload = Payload(leading(body), "train_gpt.py", NO_FILES.get)
    assert len(payload._writing) == 2
