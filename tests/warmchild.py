"""Runs scripts under the probe's child in copies of one warm process: no sandbox, and no start for each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.probe import session
from harness.probe.miniature import Miniature
from harness.probe.printed import printed
from harness.probe.session import MiniatureRun
from harness.probe.world import World
from harness.sandbox.job import Outcome
from harness.sandbox.levels import Level

CHILD = Path(__file__).parents[1] / "harness" / "probe" / "child"
SERVER = """
import json, os, sys
import numpy, sentencepiece, torch
from standalone import flips, launcher, tracer
from standalone.shims import amp, attention, compile, compressors, cuda, distributed, flex, modules, triton
from standalone.shims import mamba_modules
torch.set_num_threads(1)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for number in (1, 2):
            os.dup2(os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.environ["PROBE_CHANNEL_FD"] = str(os.open(job["channel"], os.O_WRONLY | os.O_CREAT))
        sys.argv = ["standalone", json.dumps(job["plan"])]
        launcher.main()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass
class Warm:
    """A process that has imported what scripts import, and runs each in a copy of itself."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "standalone").symlink_to(CHILD)
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.count = 0

    def run(
        self,
        script: Path,
        small: Miniature,
        data: World,
        traced: tuple[str, ...] = (),
        flips: Mapping[str, Any] | None = None,
    ) -> MiniatureRun:
        """Run a script once, as a session does."""
        self.count += 1
        place = self.folder / f"run{self.count}"
        work = place / "work"
        work.mkdir(parents=True)
        plan = {
            "script": str(script),
            "workdir": str(work),
            "environment": small.environment,
            "overrides": small.overrides(),
            "clock": dict(session.CLOCK),
            "copied": {str(data.folder): str(work / "data")},
            "trace": bool(traced),
            "experiment": {"validation": [str(work / "data" / shard) for shard in traced], "flips": flips},
        }
        output, channel = place / "output.log", place / "channel.jsonl"
        job = {"plan": plan, "output": str(output), "channel": str(channel)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        events = session._read_events(channel, data.val_tokens)
        ended = Outcome(Level.L1, "none", "exit", "", status, 0.0, 0.0, 0, output, channel, place)
        told = printed(output.read_bytes(), output.name)
        return MiniatureRun(ended, tuple(events.found), told, session._files(place), events.damaged)

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=30)
