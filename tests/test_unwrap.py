"""Packed scripts are unpacked without running them, and within bounds."""

from __future__ import annotations

import ast
import base64
import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from harness.sources import decoders
from harness.sources.decoders import DecodeError, decode
from harness.sources.unwrap import PARSED_LIMIT_CHARACTERS, Unpacked, parse, unwrap

BODY = "import os\nprint(os.environ.get('SEED', '7'))\n"
RAW_FILTERS = [{"id": lzma.FILTER_LZMA2}]


def unpack(text: str, files: dict[str, str] | None = None) -> Unpacked:
    return unwrap(text, "train_gpt.py", (files or {}).get)


def base85(data: bytes) -> str:
    return base64.b85encode(data).decode()


def test_plain_source_has_no_layers() -> None:
    found = unpack(BODY)
    assert (found.text, found.layers, found.texts, found.line, found.problem) == (BODY, (), (BODY,), None, "")
    assert isinstance(found.module, ast.Module)


def test_raw_and_container_lzma_with_aliases() -> None:
    raw = base85(lzma.compress(BODY.encode(), format=lzma.FORMAT_RAW, filters=RAW_FILTERS))
    for call in (
        f'L.decompress(B.b85decode("{base85(lzma.compress(BODY.encode()))}"))',
        f'L.decompress(B.b85decode("{raw}"),format=L.FORMAT_RAW,filters=[{{"id":L.FILTER_LZMA2}}])',
        f'L.decompress(B.b85decode("{raw}"),L.FORMAT_RAW,None,[{{"id":L.FILTER_LZMA2}}])',
    ):
        found = unpack(f"import lzma as L,base64 as B\nexec({call})\n")
        assert (found.text, found.layers, found.line, found.problem) == (BODY, ("base85", "lzma"), 2, "")
        assert len(found.texts) == 2


@pytest.mark.parametrize(
    ("expression", "data", "layers"),
    [
        ("zlib.decompress(base64.b64decode({}))", base64.b64encode(zlib.compress(BODY.encode())), ("base64", "zlib")),
        (
            "gzip.decompress(base64.b64decode({}))",
            base64.b64encode(gzip.compress(BODY.encode(), mtime=0)),
            ("base64", "gzip"),
        ),
        ("bz2.decompress(base64.a85decode({}))", base64.a85encode(bz2.compress(BODY.encode())), ("ascii85", "bz2")),
        ("brotli.decompress(bytes.fromhex({}))", brotli.compress(BODY.encode()).hex().encode(), ("hex", "brotli")),
        (
            "zstandard.decompress(base64.b64decode({}))",
            base64.b64encode(zstandard.compress(BODY.encode())),
            ("base64", "zstd"),
        ),
        (
            "__import__('zlib').decompress(__import__('base64').b64decode({})).decode('utf-8')",
            base64.b64encode(zlib.compress(BODY.encode())),
            ("base64", "zlib"),
        ),
    ],
)
def test_other_decoders(expression: str, data: bytes, layers: tuple[str, ...]) -> None:
    head = "import zlib, gzip, bz2, base64, brotli, zstandard\n"
    found = unpack(f"{head}exec({expression.format(repr(data.decode()))})")
    assert (found.text, found.layers, found.problem) == (BODY, layers, "")


def test_names_bound_to_literals_and_imported_functions() -> None:
    data = base85(zlib.compress(BODY.encode()))
    text = f"from zlib import decompress\nfrom base64 import b85decode as d\na={data[:9]!r}\nb={data[9:]!r}\n"
    found = unpack(f"{text}exec(compile(decompress(d(a+b)), 'name', 'exec'), globals())")
    assert (found.text, found.line) == (BODY, 5)


def test_nested_packing_is_peeled_to_the_core() -> None:
    inner = f"import zlib,base64\nexec(zlib.decompress(base64.b85decode('{base85(zlib.compress(BODY.encode()))}')))"
    outer = f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{base85(lzma.compress(inner.encode()))}')))"
    found = unpack(outer)
    assert found.text == BODY
    assert found.layers == ("base85", "lzma", "base85", "zlib")
    assert found.texts == (outer, inner, BODY)


@pytest.mark.parametrize(
    "stub",
    [
        'exec(open(__file__.replace("train_gpt.py", "core.py")).read())',
        'exec(open("./lib/core.py").read())',
        'from pathlib import Path\nexec(Path(__file__).with_name("core.py").read_text())',
    ],
)
def test_stubs_that_run_a_neighbour(stub: str) -> None:
    found = unpack(stub, {"core.py": BODY})
    assert (found.text, found.layers) == (BODY, ("file:core.py",))
    absent = unpack(stub)
    assert absent.layers == ()
    assert "core.py" in absent.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exec(input())", "input"),
        ("exec(f(1))", "f"),
        ("exec(a)\na = 1", "a"),
        ("a=b\nb=a\nexec(a)", "a"),
        ("exec(3)", "no text"),
        ("import zlib\nexec(zlib.decompress(b'zzz'))", "zlib data is damaged"),
        ("import base64\nexec(base64.b85decode('\\x00 '))", "base85 data is damaged"),
        ("import os\nexec(os.system('true'))", "os.system"),
        ("exec('x'.join(3))", "join"),
        ("exec('a' * 9)", "computes"),
    ],
)
def test_what_cannot_be_worked_out_is_said(text: str, problem: str) -> None:
    found = unpack(text)
    assert found.text == text
    assert problem in found.problem


def test_a_call_of_what_a_call_returns_is_followed_no_further() -> None:
    text = "import registry\nregistry.parts.make_fake('own::op')(lambda x: x)\nprint(1)\n"
    found = unpack(text)
    assert (found.text, found.layers, found.problem) == (text, (), "")


def test_exec_inside_a_program_is_no_wrapper() -> None:
    text = "def f():\n    exec('x = 1')\nf()\n"
    assert unpack(text).problem == ""
    assert unpack(text).layers == ()


def test_texts_that_double_with_every_step_are_bounded() -> None:
    steps = "\n".join(f"a{n + 1}=a{n}+a{n}" for n in range(64))
    assert "grows beyond" in unpack(f"a0='xx'\n{steps}\nexec(a64)").problem
    assert "grows beyond" in unpack(f"a='{'x' * 20000}'\nexec(a.replace('x', a))").problem


def test_bombs_stop_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "UNPACKED_LIMIT_BYTES", 1_000)
    zeros = bytes(1_001)
    for function, data in (
        ("zlib.decompress", zlib.compress(zeros)),
        ("gzip.decompress", gzip.compress(zeros, mtime=0)),
        ("bz2.decompress", bz2.compress(zeros)),
        ("lzma.decompress", lzma.compress(zeros)),
        ("brotli.decompress", brotli.compress(zeros)),
        ("zstandard.decompress", zstandard.compress(zeros)),
        ("base64.b64decode", base64.b64encode(zeros)),
    ):
        with pytest.raises(DecodeError, match="unpacks to more than 1,000 bytes"):
            decode(function, data, {})
        assert decode(function, data[:0] or _small(function), {})[1] == b"ok"


def _small(function: str) -> bytes:
    encoders: dict[str, Callable[[bytes], bytes]] = {
        "zlib.decompress": zlib.compress,
        "gzip.decompress": gzip.compress,
        "bz2.decompress": bz2.compress,
        "lzma.decompress": lzma.compress,
        "brotli.decompress": brotli.compress,
        "zstandard.decompress": zstandard.compress,
        "base64.b64decode": base64.b64encode,
    }
    return encoders[function](b"ok")


def test_giant_dictionaries_are_refused() -> None:
    options = {"format": lzma.FORMAT_RAW, "filters": [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]}
    with pytest.raises(DecodeError, match="dictionary"):
        decode("lzma.decompress", b"\x00", options)


def test_unknown_decoders_are_refused() -> None:
    with pytest.raises(DecodeError, match=r"marshal\.loads is not a decoder"):
        decode("marshal.loads", b"", {})


def test_giant_bodies_are_not_parsed() -> None:
    data = base85(zlib.compress(b"#" * (PARSED_LIMIT_CHARACTERS + 1)))
    found = unpack(f"import zlib,base64\nexec(zlib.decompress(base64.b85decode('{data}')))")
    assert "which are not parsed" in found.problem


def test_endless_wrapping_ends() -> None:
    text = "exec('exec(1)')"
    for _ in range(5):
        text = f"exec({text!r})"
    assert unpack(text).problem != ""


def test_parse_turns_every_failure_into_a_syntax_error() -> None:
    for text in ("def", "x = \x00", "(" * 5_000, "-" * 20_000 + "1"):
        with pytest.raises(SyntaxError):
            parse(text)


def test_syntax_errors_are_kept() -> None:
    assert isinstance(unpack("def f(:\n").module, SyntaxError)


@given(st.binary(max_size=60), st.sampled_from(["lzma", "zlib", "bz2", "gzip", "brotli", "zstandard"]))
def test_damaged_payloads_are_one_clear_error(data: bytes, module: str) -> None:
    found = unpack(f"import {module}\nexec({module}.decompress({data!r}))")
    assert found.problem or len(found.layers) == 1


@given(st.text(max_size=200))
def test_any_text_is_unwrapped(text: str) -> None:
    assert unpack(text).texts[0] == text


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "wrapper",
    [
        # Rebound names, pieces added one by one, and options computed from constants.
        "S=zlib.decompress(base64.b64decode({b64}))\nS=S.decode()\nexec(compile(S,__file__+'.x','exec'))",
        "s=''\nfor_=1\ns+={b64}[:9]\ns+={b64}[9:]\nexec(zlib.decompress(base64.b64decode(s)))",
        "exec(zlib.decompress(base64.b64decode(''.join([{b64}[:9],{b64}[9:]]))))",
        "parts={b64}[:9],{b64}[9:]\nexec(zlib.decompress(base64.b64decode(parts[0]+parts[1])))",
        "a,b={b64}[:9],{b64}[9:]\nexec(zlib.decompress(base64.b64decode(a+b)))",
        "exec(zlib.decompress(bytes({codes})))",
        # Other names of the same functions.
        "import codecs\nexec(codecs.decode(codecs.decode({b64}.encode(),'base64'),'zlib'))",
        "exec(getattr(__import__('zlib'),'decompress')(__import__('base64').b64decode({b64})))",
        "import builtins\nbuiltins.exec(zlib.decompressobj().decompress(base64.b64decode({b64})))",
        "eval(compile(zlib.decompress(base64.b64decode({b64})),'x','exec'))",
        "run=exec\nrun(zlib.decompress(base64.b64decode({b64})))",
        # Everything on one line, and inside the usual guards.
        "import zlib as z;import base64 as b;exec(z.decompress(b.b64decode({b64})))",
        "if __name__=='__main__':\n exec(zlib.decompress(base64.b64decode({b64})))",
        "try:\n import brotli\nexcept ImportError:\n pass\nexec(zlib.decompress(base64.b64decode({b64})))",
    ],
)
def test_ways_to_say_the_same(wrapper: str) -> None:
    data = zlib.compress(BODY.encode())
    filled = wrapper.replace("{b64}", repr(b64(data))).replace("{codes}", str(list(data)))
    found = unpack(f"import zlib, base64\n{filled}\n")
    assert (found.text, found.problem) == (BODY, "")
    assert found.layers[-1] == "zlib"


def test_presets_in_filters() -> None:
    data = base85(lzma.compress(BODY.encode(), format=lzma.FORMAT_RAW, filters=RAW_FILTERS))
    filters = "[{'id':L.FILTER_LZMA2,'preset':9|L.PRESET_EXTREME}]"
    text = (
        f"import lzma as L,base64 as B\nexec(L.decompress(B.b85decode('{data}'),format=L.FORMAT_RAW,filters={filters}))"
    )
    assert unpack(text).text == BODY


@pytest.mark.parametrize(
    "end",
    [
        "_d=tempfile.mkdtemp()\n_f=os.path.join(_d,'x.py')\nopen(_f,'wb').write(_c)\nrunpy.run_path(_f,run_name='__main__')",
        "d=os.path.join(os.path.dirname(os.path.abspath(__file__)),'x.py')\nwith open(d,'wb') as f:f.write(_c)\nrunpy.run_path(d)",  # noqa: E501
        """p='x.py'
with open('l','w') as l:
 if not os.path.exists(p):
  with open(p,'wb') as f:f.write(_c)
s=U.spec_from_file_location('__main__',p)
m=U.module_from_spec(s)
s.loader.exec_module(m)""",
        "Path('x.py').write_bytes(_c)\nexec(Path('x.py').read_text())",
        """for n,c in zip(['y.py','x.py'],['pass',_c]):
 f=os.path.join('d',n);os.makedirs('d')
 open(f,'w').write(c)
exec(open(os.path.join('d','x.py')).read())""",
        "b={'x.py':_c}\nfor n,c in b.items():\n with open(n,'w') as f:\n  f.write(c)\nexec(compile(b['x.py'],'x.py','exec'))",  # noqa: E501
    ],
)
def test_payloads_written_to_a_file_first(end: str) -> None:
    head = "import zlib,base64,os,tempfile,runpy,importlib.util as U\nfrom pathlib import Path\n"
    found = unpack(f"{head}_c=zlib.decompress(base64.b64decode('{b64(zlib.compress(BODY.encode()))}'))\n{end}")
    assert (found.text, found.layers, found.problem) == (BODY, ("base64", "zlib"), "")


def test_a_written_file_is_known_to_what_runs_later() -> None:
    text = f"open('a.py','w').write({BODY!r})\nopen('b.py','w').write('exec(open(\"a.py\").read())')\nexec(open('b.py').read())"  # noqa: E501
    assert unpack(text).text == BODY


@pytest.mark.parametrize(
    ("stub", "name", "data", "layers"),
    [
        (
            "exec(compile(lzma.decompress(pathlib.Path(__file__).with_suffix('.py.lzma').read_bytes()),__file__,'exec'))",
            "train_gpt.py.lzma",
            lzma.compress(BODY.encode()),
            ("lzma",),
        ),
        (
            """with open(os.path.join(os.path.dirname(__file__),'code.lzma'),'rb') as f:
    bundle=json.loads(lzma.decompress(f.read()))
exec(compile(bundle['core.py'],'core.py','exec'))""",
            "code.lzma",
            lzma.compress(json.dumps({"core.py": BODY}).encode()),
            ("lzma",),
        ),
        ("exec(gzip.open('src/code.gz').read())", "src/code.gz", gzip.compress(BODY.encode(), mtime=0), ("gzip",)),
        (
            """import brotli
here=pathlib.Path(__file__).resolve().parent
exec(brotli.decompress((here/'code.br').read_bytes()))""",
            "code.br",
            brotli.compress(BODY.encode()),
            ("brotli",),
        ),
        (
            "from compression import zstd\nexec(zstd.decompress(open('code.zst','rb').read()))",
            "code.zst",
            zstandard.compress(BODY.encode()),
            ("zstd",),
        ),
    ],
)
def test_compressed_files_beside_the_script(stub: str, name: str, data: bytes, layers: tuple[str, ...]) -> None:
    text = f"import lzma, json, os, pathlib, gzip\n{stub}\n"
    files: dict[str, str | bytes] = {name: data}
    found = unwrap(text, "train_gpt.py", files.get)
    assert (found.text, found.layers, found.problem) == (BODY, (f"file:{name.rpartition('/')[2]}", *layers), "")
    absent = unpack(text)
    assert "which the folder does not hold" in absent.problem


def test_a_payload_behind_the_script_itself() -> None:
    tail = b64(zlib.compress(BODY.encode()))
    text = (
        f"import zlib,base64\nexec(zlib.decompress(base64.b64decode(open(__file__).read().split('#!')[-1])))\n#!{tail}"
    )
    found = unwrap(text, "train_gpt.py", {"train_gpt.py": text.encode()}.get)
    assert found.text == BODY


def test_a_bundle_of_modules_is_not_read_as_its_first_file() -> None:
    text = "open('core.py','w').write('x = 1')\nexec('import core\\nprint(core.x)')"
    assert "imports core from its own payload" in unpack(text).problem


def test_several_payloads_are_one_program() -> None:
    found = unpack("exec('import os')\nexec('x = 1')\ndef f():\n    return x\nf()\n")
    assert found.text == "import os\nx = 1\ndef f():\n    return x\nf()\n"
    assert "os.system" in unpack("import os\nexec('x = 1')\nexec(os.system('true'))").problem


@pytest.mark.parametrize(
    "text",
    [
        "import marshal\nexec(marshal.loads(b'x'))",
        "import marshal, types\ntypes.FunctionType(marshal.loads(b'x'), globals())()",
        "import pickle\nexec(pickle.loads(b'x'))",
    ],
)
def test_byte_code_is_never_loaded(text: str) -> None:
    assert "never loaded" in unpack(text).problem


def test_codecs_that_decompress_are_no_text_encodings() -> None:
    assert "decode" in unpack("exec(b'zzz'.decode('zlib'))").problem


def test_a_payload_that_nothing_is_seen_to_run_is_no_plain_source() -> None:
    assert "holds a payload" in unpack(f"a='{'x' * 9_000}'\nimport core\ncore.start(a)\n").problem
    assert unpack(f"a='{'x' * 9_000}'\ndef f():\n    return a\n").problem == ""


def test_many_small_pieces() -> None:
    data = b64(zlib.compress("".join(f"x{n} = {n}\n" for n in range(9_000)).encode()))
    pieces = "\n".join(f"s+={data[at : at + 40]!r}" for at in range(0, len(data), 40))
    found = unpack(f"import zlib,base64\ns=''\n{pieces}\nexec(zlib.decompress(base64.b64decode(s)))")
    assert found.problem == ""
    assert found.text.endswith("x8999 = 8999\n")
    joined = "+".join(repr(data[at : at + 400]) for at in range(0, len(data), 400))
    assert unpack(f"import zlib,base64\nexec(zlib.decompress(base64.b64decode({joined})))").problem == ""
