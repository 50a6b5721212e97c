"""The environment of a run: made from nothing, so that nothing of the caller's leaks into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.model import HarnessError

# Where programs, libraries and devices are: a run cannot start without them, and they carry no settings of ours.
PASSED_ON: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "SYSTEMROOT",
)
# What flags of the command line set.
BY_FLAG: Final = {
    "SEED": "--seeds",
    "ITERATIONS": "--steps",
    "MAX_WALLCLOCK_SECONDS": "--wallclock",
    "DATA_PATH": "--data",
    "TOKENIZER_PATH": "--data",
}
OURS: Final = frozenset({"RUN_ID", "HOME", "TMPDIR", "PATH"})
_INTERPRETER_PREFIXES = ("LD_", "DYLD_", "PYTHON", "GIT_", "BASH_")


def clean(caller: Mapping[str, str], home: Path, scratch: Path) -> dict[str, str]:
    """The variables that every run gets.

    Args:
        caller: the environment of this process.
        home: what the run takes for the home directory.
        scratch: where it may put temporary files.
    """
    environment = {name: caller[name] for name in PASSED_ON if name in caller}
    interpreter = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([interpreter, environment.get("PATH", os.defpath)])
    return environment | {
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        # Threads that wait must not eat the cores of those that work.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        # Lines must arrive when they are printed: we time them.
        "PYTHONUNBUFFERED": "1",
    }


def refuse_foreign(declared: Mapping[str, str], where: str) -> None:
    """Refuse variables that would act on the interpreter or the harness instead of the script.

    Raises:
        HarnessError: there is one; the message names it.
    """
    for name in declared:
        if name in OURS or name.startswith(_INTERPRETER_PREFIXES):
            raise HarnessError(f"{where}: {name} cannot be set for a run")


def parse_pairs(pairs: list[str]) -> dict[str, str]:
    """`KEY=VALUE` arguments.

    Raises:
        HarnessError: one has no `=`, or its key belongs to a flag of its own.
    """
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise HarnessError(f"--env {pair}: expected KEY=VALUE")
        if name in BY_FLAG:
            raise HarnessError(f"--env {pair}: use {BY_FLAG[name]}")
        parsed[name] = value
    refuse_foreign(parsed, "--env")
    return parsed
