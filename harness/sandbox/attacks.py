"""Run hostile scripts in a sandbox and say what came of it: the attack table of docs/sandbox.md.

A hostile script says in its docstring what it tries and what is expected at each level (`L2: contained`). What
happened is seen from outside (`Bait.reached`), from what the script itself boasts of through the channel, from the
files brought out, and from the limit that ended it:

- `contained`: nothing got through.
- `stopped LIMIT`: nothing got through, and it was ended by a limit or a signal.
- `reached`: something got through.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.sandbox.backend import Sandbox
from harness.sandbox.bait import VIEW, Bait, laid_out
from harness.sandbox.job import MIB, Job, Limits, Outcome, View
from harness.sandbox.levels import Level
from harness.sandbox.runner import run
from harness.sandbox.runtime import interpreter

HOME: Final = "/attacks"
LIMITS: Final = Limits(
    memory_bytes=96 * MIB,
    processes=12,
    disk_bytes=16 * MIB,
    file_bytes=8 * MIB,
    cpu_s=1.0,
    wall_s=20.0,
    output_bytes=MIB,
    channel_bytes=MIB,
    files=500,
)
NOT_RUN: Final = "not run"
KEEP: Final = ("work/kept/*", "work/etc/*", "work/link")


@dataclass(frozen=True, slots=True)
class Attack:
    """A hostile script.

    Attributes:
        path: where it lies.
        says: what it tries, in a sentence.
        expected: what may come of it, by level.
        wall_s: the time that it gets, or None for the usual.
    """

    path: Path
    says: str
    expected: Mapping[Level, tuple[str, ...]]
    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an attack.

    Attributes:
        word: `contained`, `reached`, `stopped LIMIT`.
        reached: what got through.
        outcome: the run.
    """

    word: str
    reached: tuple[str, ...]
    outcome: Outcome


def load(folder: Path) -> list[Attack]:
    """The hostile scripts of a folder, by name."""
    return [_read(path) for path in sorted(folder.glob("*.py")) if path.name != "common.py"]


def _read(path: Path) -> Attack:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    words = dict(re.findall(r"^(\w+): (.+)$", text, re.MULTILINE))
    expected = {level: tuple(words[level.name].split("|")) for level in Level if level.name in words}
    return Attack(path, text.splitlines()[0], expected, float(words["wall"]) if "wall" in words else None)


def attempt(attack: Attack, into: Path, sandbox: Sandbox) -> Result:
    """Run one, with everything that it might reach laid out."""
    limits = LIMITS if attack.wall_s is None else replace(LIMITS, wall_s=attack.wall_s)
    with laid_out() as bait:
        job = Job(
            argv=(interpreter(), "-S", "-E", "-s", "-B", f"{HOME}/{attack.path.name}"),
            views=(View(attack.path.parent, HOME), View(bait.view, VIEW)),
            workdir="/scratch/work",
            environment={"BAIT": json.dumps(bait.told())},
            limits=limits,
            keep=KEEP,
            channel=True,
        )
        outcome = run(job, into, sandbox=sandbox)
        reached = (*bait.reached().values(), *_boasts(outcome), *_brought_out(outcome, bait), *_left(into))
    if reached:
        return Result("reached", reached, outcome)
    word = "contained" if outcome.ended == "exit" else f"stopped {outcome.ended}"
    return Result(word, (), outcome)


def _boasts(outcome: Outcome) -> list[str]:
    """What the script said through the channel, and nowhere else."""
    text = outcome.channel.read_text(encoding="utf-8", errors="replace") if outcome.channel else ""
    return re.findall(r'^\{"reached": "(.*)"\}$', text, re.MULTILINE)


def _brought_out(outcome: Outcome, bait: Bait) -> list[str]:
    """Files brought out that hold what lies outside, or are no plain files."""
    found = []
    for path in outcome.kept.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            found.append(f"{path.name!r} was brought out")
        elif path.is_file() and bait.token.encode() in path.read_bytes():
            found.append(f"{path.name!r} was brought out with a file outside in it")
    return found


def _left(into: Path) -> list[str]:
    """What is in the run directory and should not be."""
    known = {"output.log", "channel.jsonl", "kept"}
    return [f"{path.name!r} was left behind" for path in into.iterdir() if path.name not in known]
