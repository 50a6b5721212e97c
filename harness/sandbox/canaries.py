"""Try a backend's walls from inside: the only proof that they stand on this machine, today."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from harness.sandbox.backend import PACKAGE, Backend, Canary, Sandbox
from harness.sandbox.bait import VIEW, Bait, laid_out
from harness.sandbox.job import MIB, Job, Limits, Outcome, View
from harness.sandbox.levels import Level
from harness.sandbox.runner import run
from harness.sandbox.runtime import interpreter

PROGRAM: Final = "/canaries/program.py"
LIMITS: Final = Limits(
    memory_bytes=128 * MIB,
    processes=16,
    disk_bytes=8 * MIB,
    file_bytes=4 * MIB,
    cpu_s=10,
    wall_s=20,
    output_bytes=MIB,
    channel_bytes=MIB,
)
# These hold at every level; the walls' own at L2 and above.
EVERYWHERE: Final = frozenset({"environment", "survivor", "memory", "processes", "start"})
CUT: Final = 160


def fly(backend: Backend) -> tuple[Canary, ...]:
    """All canaries of one backend, run in it."""
    sandbox = Sandbox(backend, backend.level)
    with tempfile.TemporaryDirectory(prefix="harness-") as name, laid_out() as bait:
        walls = _run(sandbox, Path(name) / "walls", ("walls", json.dumps(bait.told())), bait)
        if walls.ended != "exit" or walls.channel is None:
            return (Canary("start", held=False, detail=f"{walls.ended}: {walls.reason}"[:CUT]),)
        found = [Canary("start", held=True, detail="a program was started"), *_read(walls, bait)]
        for what, limit in (("hog", "memory"), ("swarm", "processes")):
            outcome = _run(sandbox, Path(name) / what, (what,), bait)
            found.append(Canary(limit, held=outcome.ended == limit, detail=outcome.reason[:CUT]))
    return tuple(found)


def fallen(backend: Backend, found: tuple[Canary, ...]) -> tuple[Canary, ...]:
    """Those that should have held at the backend's level and did not."""
    return tuple(one for one in found if not one.held and (backend.level > Level.L1 or one.name in EVERYWHERE))


def _run(sandbox: Sandbox, into: Path, arguments: tuple[str, ...], bait: Bait) -> Outcome:
    views = (View(PACKAGE / "canary_program.py", PROGRAM), View(bait.view, VIEW))
    argv = (interpreter(), "-I", "-S", PROGRAM, *arguments)
    return run(Job(argv, views, "/scratch", {}, LIMITS, channel=True), into, sandbox=sandbox)


def _read(outcome: Outcome, bait: Bait) -> list[Canary]:
    """Their own reports, corrected by what is seen from outside."""
    reached = bait.reached()
    text = outcome.channel.read_text(encoding="ascii") if outcome.channel else ""
    found = []
    for line in text.splitlines():
        said = json.loads(line)
        name = said["name"]
        detail = reached.get(name, said["detail"])
        found.append(Canary(name, held=not said["through"] and name not in reached, detail=detail[:CUT]))
    return found
