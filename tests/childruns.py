"""Runs scripts under the probe's child, as a session would, but without a sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warmchild import CHILD, Job, shared

PARSER = Path(__file__).parents[1] / "harness" / "sources"


@dataclass(frozen=True)
class Ran:
    status: int
    output: str
    events: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def names(self, kind: str) -> set[str]:
        return {event["name"] for event in self.of(kind)}


def run(folder: Path, text: str, *, rank: int = 0, world_size: int = 1, **plan: Any) -> Ran:
    """Run a script in a copy of a warm process; a rank below 0 is every rank of the world, each in a copy."""
    made = _plan(folder, text) | {"world_size": world_size} | plan
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        place = Path(name)
        made |= {"store": str(place / "store")}
        ranks = range(world_size) if rank < 0 else [rank]
        jobs = [Job(place / "output", place / f"events{each}", made | {"rank": each}) for each in ranks]
        statuses = shared().run(*jobs)
        events = [json.loads(line) for job in jobs for line in job.channel.read_text(encoding="utf-8").splitlines()]
        return Ran(next(filter(None, statuses), 0), jobs[0].output.read_text(encoding="utf-8"), events)


def run_fresh(folder: Path, text: str, **plan: Any) -> Ran:
    """Run a script in a process of its own, as a session starts it."""
    packages = folder / "packages"
    packages.mkdir()
    (packages / "standalone").symlink_to(CHILD)
    (folder / "plan.json").write_text(json.dumps(_plan(folder, text) | plan), encoding="utf-8")
    reading, writing = os.pipe()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages), "PROBE_CHANNEL_FD": str(writing)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "standalone", str(folder / "plan.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[writing],
    )
    os.close(writing)
    events: list[dict[str, Any]] = []

    def read() -> None:
        with os.fdopen(reading) as channel:
            events.extend(json.loads(line) for line in channel)

    # Beside the output: either pipe may fill up.
    reader = threading.Thread(target=read)
    reader.start()
    output, _ = process.communicate(timeout=100)
    reader.join()
    return Ran(process.returncode, output.decode(), events)


def _plan(folder: Path, text: str) -> dict[str, Any]:
    script = folder / "train_gpt.py"
    script.write_text(text, encoding="utf-8")
    return {"script": str(script), "workdir": str(folder), "newer_parser": str(PARSER)}
