"""What a Python program needs to be able to read: the interpreter, its packages and the system's libraries."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Final

from harness.sandbox.job import View

# Where distributions keep libraries, compilers and the few data files that programs expect.
SYSTEM: Final = (
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/nix/store",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)


def interpreter() -> str:
    """This interpreter by its whole path: the program starts in another folder."""
    return str(Path(sys.executable).absolute())


@functools.cache
def python_runtime_views() -> tuple[View, ...]:
    """Views of this interpreter's environment, of what it is based on, and of the system; each at its own path."""
    packages = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    programs = [os.path.realpath(interpreter())]
    parents = [str(Path(program).parent) for program in programs]
    wanted = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *packages, *parents, *SYSTEM]
    found: list[str] = []
    for path in sorted({str(Path(path).absolute()) for path in wanted if Path(path).exists()}):
        if path != "/" and not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    return tuple(View(Path(path), path) for path in found)
