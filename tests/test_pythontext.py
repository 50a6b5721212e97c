"""Python files as bytes: what is told of them is held against Python itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import audit
from harness.checks import RULES
from harness.model import Verdict
from harness.sources import pythontext
from harness.sources.script import read
from harness.sources.unwrap import unwrap

FILES: dict[str, tuple[bytes, str, int | None]] = {
    "plain": (b"print(1)\n", "", None),
    "byte-order mark": (b"\xef\xbb\xbfprint(1)\n", "", None),
    "two byte-order marks": (b"\xef\xbb\xbf\xef\xbb\xbfprint(1)\n", "two byte-order marks", 1),
    "line ends": (b"x=1\r# coding: \xc3\xa9\rprint(x)\r\n", "", None),
    "UTF-16": ("print(1)\n".encode("utf-16"), "UTF-16", 1),
    "UTF-16 without a mark": ("print(1)\n".encode("utf-16-le"), "null bytes", 1),
    "a null byte": (b"print(1)\r# a\0b\n", "null bytes", 2),
    "a null byte at the end": (b"print(1)\n\0", "null bytes", 2),
    "wrong bytes": (b"print(1)\n# a\n# \xff\n", "no utf-8", 3),
    "wrong bytes first": (b"# \xe9\nprint(1)\n", "no utf-8", 1),
    "declared too late": (b"# \xe9\n# coding: latin-1\nprint(1)\n", "no utf-8", 1),
    "latin-1": (b"# coding: latin-1\nx='\xe9'\nassert len(x) == 1\n", "", None),
    "Shift JIS": ("# coding: shift_jis\nx='\u8868'\nprint(1)\n".encode("shift_jis"), "", None),
    "no ASCII": (b"# coding: ascii\nx=1\nx='\xc3\xa9'\n", "no ascii", 3),
    "no Windows": (b"# coding: cp1252\n# \x81\n", "no cp1252", 2),
    "a mark and another encoding": (b"\xef\xbb\xbf# coding: latin-1\nprint(1)\n", "cannot read its encoding", 1),
    "unknown": (b"# coding: foobar\nprint(1)\n", "unknown encoding: foobar", 1),
    "unknown behind a carriage return": (b"# a\r# coding: foobar\rprint(1)\r", "unknown encoding: foobar", 1),
    "unknown on the third line": (b"\n\n# coding: foobar\nprint(1)\n", "", None),
    "unknown behind code": (b"x=1\n# coding: foobar\nprint(1)\n", "", None),
    "no encoding of text": (b"# coding: rot13\nprint(1)\n", "no encoding of text", 1),
    "wide": (b"# coding: utf-16\nprint(1)\n", "in bytes that are not", 1),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused_where_python_refuses_it(name: str, tmp_path: Path) -> None:
    data, problem, line = FILES[name]
    found = pythontext.read(data)
    assert problem in found.problem
    assert (found.line, bool(found.problem), found.undecided) == (line, bool(problem), False)
    path = tmp_path / "script.py"
    path.write_bytes(data)
    done = subprocess.run([sys.executable, "-I", str(path)], capture_output=True, check=False)
    assert (done.returncode != 0) == bool(problem), done.stderr
    assert (b"SyntaxError" in done.stderr) == bool(problem)


@pytest.mark.parametrize(
    "data",
    [
        b"# coding: unicode_escape\nprint(1)\n",
        b"# coding: punycode\nprint(1)\n",
        b"# coding: utf-7\nprint(1)\n",
        # Python 3.11 reads over it.
        b"\xef\xbb\xbfprint(1)\n# \xff\n",
    ],
)
def test_what_is_not_read_here_is_undecided(data: bytes) -> None:
    found = pythontext.read(data)
    assert found.undecided
    assert found.problem


@given(st.binary(max_size=200), st.sampled_from([b"", b"# coding: latin-1\n", b"# coding: \xff", b"\xef\xbb\xbf"]))
def test_any_bytes_are_read_or_refused(data: bytes, head: bytes) -> None:
    found = pythontext.read(head + data)
    assert "\r" not in found.text
    assert (found.line is None) == (not found.problem)


def test_the_lines_of_a_script_are_those_of_its_tree() -> None:
    for end in ("\r", "\r\n", "\n"):
        script = read("a.py", f"x = 1{end}y = 'a'{end}", 10, lambda _: None)
        assert script.text == "x = 1\ny = 'a'\n"
        assert [statement.lineno for statement in script.tree.body] == [1, 2]
    packed = unwrap("exec('x = 1\\ry = 2\\r')", "a.py", lambda _: None)
    assert packed.text == "x = 1\ny = 2\n"


def test_a_script_with_carriage_returns_alone_is_audited(tmp_path: Path) -> None:
    text = "import torch\rdef eval_val(x, y):\r    nll = torch.minimum(x.loss, y.loss)\r    return nll\r"
    (tmp_path / "README.md").write_text("# A run\n", encoding="utf-8")
    (tmp_path / "train_gpt.py").write_bytes(text.encode())
    audited = audit.audit_folder(tmp_path, audit.Options(frozenset(rule.code for rule in RULES), excerpts=True))
    assert audited.crashes == ()
    assert audited.report is not None


@pytest.mark.parametrize(
    ("name", "verdict"), [("plain", Verdict.PASS), ("UTF-16", Verdict.FAIL), ("wrong bytes", Verdict.FAIL)]
)
def test_the_rule_judges_the_bytes(name: str, verdict: Verdict, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A run\n", encoding="utf-8")
    (tmp_path / "train_gpt.py").write_bytes(FILES[name][0])
    report = audit.audit_folder(tmp_path, audit.Options(frozenset({"PG007"}))).report
    assert report is not None
    [finding] = report.findings
    assert (finding.verdict, FILES[name][1] in finding.message) == (verdict, True)
