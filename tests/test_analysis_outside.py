"""What leaves the program: the network, other programs, compilers, code made at run time."""

from __future__ import annotations

import ast
import textwrap

import pytest

from harness.analysis.configuration import Configuration
from harness.analysis.index import Index
from harness.analysis.outside import contacts
from harness.analysis.program import Module, Program
from harness.analysis.reach import Reach
from harness.model import Location


def found(source: str) -> list[tuple[str, str, int | None]]:
    module = Module(Index(ast.parse(textwrap.dedent(source))), lambda line: Location("train_gpt.py", line))
    program = Program(module, {})
    told = contacts(program, Reach(program, Configuration(program)))
    return [(each.kind, each.name, each.place.line) for each in told]


@pytest.mark.parametrize(
    ("command", "contact"),
    [
        ('["g++", "-O3", str(source)]', ("compiler", "g++")),
        ('("/usr/bin/x86_64-linux-gnu-gcc-12", "a.c")', ("compiler", "/usr/bin/x86_64-linux-gnu-gcc-12")),
        ('"clang++ -shared a.cc -o a.so", shell=True', ("compiler", "clang++")),
        ("[COMPILER, *flags]", ("compiler", "c++")),
        ("command", ("compiler", "c++")),
        # What cannot be told, and what is only called like one, stay programs.
        ("[either, *flags]", ("program", "subprocess.run")),
        ("given", ("program", "subprocess.run")),
        ('["accede", "a.c"]', ("program", "subprocess.run")),
        ('["curl", "gcc"]', ("network", "subprocess.run (`curl`)")),
        ("[]", ("program", "subprocess.run")),
    ],
)
def test_a_compiler_is_told_from_other_programs(command: str, contact: tuple[str, str]) -> None:
    source = f"""
        import subprocess
        COMPILER = "c++"
        def build(source, flags, given):
            either = "gcc"
            either = flags[0]
            command = [COMPILER, "-c", source]
            subprocess.run({command})
        build("a.c", [], ["gcc"])
    """
    assert found(source) == [(*contact, 8)]


@pytest.mark.parametrize(("names", "told"), [('("flash_attn", "re")', False), ('["re", found]', True), ("found", True)])
def test_modules_of_written_names_are_imported_like_others(names: str, *, told: bool) -> None:
    source = f"""
        for name in {names}:
            __import__(name)
    """
    assert found(source) == ([("dynamic code", "__import__", 3)] if told else [])


def test_a_program_is_not_harmless_by_its_options() -> None:
    source = """
        import subprocess
        command = [binary, "--bits", "free", "--hostname", "a"]
        subprocess.Popen(command, text=True)
        asked = ["nvidia-smi", "-q"]
        subprocess.run(asked)
    """
    assert found(source) == [("program", "subprocess.Popen", 4)]


def test_what_asks_about_the_machine_and_what_never_runs_is_left_out() -> None:
    source = """
        import os, subprocess, urllib.request
        subprocess.run(["nvidia-smi"])
        if False:
            urllib.request.urlopen("x")
        os.system("rm -r data")
        exec(text)
        exec("x = 1")
    """
    assert found(source) == [("program", "os.system", 6), ("dynamic code", "exec", 7)]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ('["git", "clone", url]', "git clone"),
        ('f"git -c a=b clone {url}"', "git -c a=b clone"),
        ('[sys.executable, "-m", "pip", "install", "-q", "brotli"]', "pip install"),
        ('"nvidia-smi; wget -q https://example.org/a.bin", shell=True', "wget"),
        ("words", "curl"),
        ('["pip", "install", "--no-index", "a.whl"]', None),
        ('["git", "rev-parse", "HEAD"]', ""),
        ('["git", "status", "--porcelain"]', ""),
    ],
)
def test_programs_that_fetch_are_network_and_questions_are_none(command: str, told: str | None) -> None:
    source = f"""
        import subprocess, sys
        words = ["curl", "-L", "https://example.org/a.bin"]
        subprocess.run({command})
    """
    expected = [("program", "subprocess.run", 4)] if told is None else []
    assert found(source) == ([("network", f"subprocess.run (`{told}`)", 4)] if told else expected)
