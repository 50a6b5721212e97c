"""Runs scripts under the probe's child, as a session would, but without a sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHILD = Path(__file__).parents[1] / "harness" / "probe" / "child"
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


def start(folder: Path, text: str, **plan: Any) -> tuple[subprocess.Popen[bytes], int]:
    """Start one rank; returns the process and the reading end of its channel."""
    rank = plan.get("rank", 0)
    packages = folder / "packages"
    packages.mkdir(exist_ok=True)
    link = packages / "standalone"
    if not link.exists():
        link.symlink_to(CHILD)
    script = folder / "train_gpt.py"
    script.write_text(text, encoding="utf-8")
    plan = {"script": str(script), "workdir": str(folder), "newer_parser": str(PARSER)} | plan
    (folder / f"plan{rank}.json").write_text(json.dumps(plan))
    reading, writing = os.pipe()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages), "PROBE_CHANNEL_FD": str(writing)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "standalone", str(folder / f"plan{rank}.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[writing],
    )
    os.close(writing)
    return process, reading


def finish(process: subprocess.Popen[bytes], reading: int) -> Ran:
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


def run(folder: Path, text: str, **plan: Any) -> Ran:
    return finish(*start(folder, text, **plan))
