"""Programs that scripts start: the ones that only a machine for training has answer here."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ..events import replaced
from ..patch import present, put

TOOLS = ("nvidia-smi", "nvcc")


def install(machine: str) -> None:
    """Answer for programs that are not here.

    Args:
        machine: what `nvidia-smi` prints.
    """
    real_run, real_output = subprocess.run, subprocess.check_output
    real_check = subprocess.check_call

    def run(*arguments: Any, **keywords: Any) -> Any:
        command = arguments[0] if arguments else keywords.get("args", ())
        stand_in = _standin(command, machine)
        if stand_in is None:
            return real_run(_here(command), *arguments[1:], **{k: v for k, v in keywords.items() if k != "args"})
        text = stand_in()
        return subprocess.CompletedProcess(command, 0, _as_wanted(text, keywords), _as_wanted("", keywords))

    def check_output(*arguments: Any, **keywords: Any) -> Any:
        stand_in = _standin(arguments[0], machine)
        if stand_in is None:
            return real_output(_here(arguments[0]), *arguments[1:], **keywords)
        return _as_wanted(stand_in(), keywords)

    def check_call(*arguments: Any, **keywords: Any) -> Any:
        stand_in = _standin(arguments[0], machine)
        if stand_in is None:
            return real_check(_here(arguments[0]), *arguments[1:], **keywords)
        stand_in()
        return 0

    put(subprocess, run=run, check_output=check_output, check_call=check_call)


def _words(command: Any) -> list[str]:
    return command.split() if isinstance(command, str) else [os.fsdecode(word) for word in command]


def _standin(command: Any, machine: str) -> Callable[[], str] | None:
    words = _words(command)
    name = os.path.basename(words[0]) if words else ""
    if name in TOOLS:
        replaced(name, "prints the name of the machine that is faked")
        return lambda: f"{machine} (CPU shim)\n"
    if name == "lrzip" and shutil.which("lrzip") is None:
        replaced("lrzip", "lzma, whose output is of another size", exact=False)
        return lambda: _lrzip(words[1:])
    return None


def _here(command: Any) -> Any:
    """A program of a Python package is run as its module, wherever its start script lies."""
    words = [] if isinstance(command, str) else list(command)
    if words and words[0] == "pyminify" and present("python_minifier"):
        return [sys.executable, "-m", "python_minifier", *words[1:]]
    return command


def _lrzip(words: list[str]) -> str:
    """`lrzip [-d] -o OUTPUT INPUT`."""
    with open(words[-1], "rb") as file:
        data = file.read()
    packed = lzma.decompress(data) if "-d" in words else lzma.compress(data, preset=9)
    target = words[words.index("-o") + 1] if "-o" in words else words[-1] + ".lrz"
    with open(target, "wb") as file:
        file.write(packed)
    return ""


def _as_wanted(text: str, keywords: dict[str, Any]) -> Any:
    if keywords.get("text") or keywords.get("universal_newlines") or keywords.get("encoding"):
        return text
    return text.encode()
