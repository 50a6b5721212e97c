"""Runs scripts under the probe's child in copies of one warm process: no sandbox, and no start for each."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
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
LIMIT_S = 600.0
SERVER = """
import json, os, sys, traceback
import numpy, sentencepiece, torch, torch._dynamo
from standalone import flips, launcher, told, tracer
from standalone.shims import amp, attention, compile, compressors, cuda, distributed, fla, flex, modules, several
from standalone.shims import mamba_modules, triton
torch.set_num_threads(1)

def run(output, channel, plan):
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ["PROBE_CHANNEL_FD"] = str(os.open(channel, os.O_WRONLY | os.O_CREAT))
    sys.argv = ["standalone", json.dumps(plan)]
    try:
        launcher.main()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)

for line in sys.stdin:
    copies = []
    for job in json.loads(line):
        copies.append(os.fork())
        if copies[-1] == 0:
            run(*job)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) for copy in copies]), flush=True)
"""


@dataclass(frozen=True)
class Job:
    """What one copy does, and the files that keep what it prints and tells."""

    output: Path
    channel: Path
    plan: Mapping[str, Any]


class Server:
    """A process that has imported what scripts import, and runs what it is told in copies of itself."""

    def __init__(self) -> None:
        self._packages = tempfile.TemporaryDirectory(prefix="warm-")
        (Path(self._packages.name) / "standalone").symlink_to(CHILD)
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": self._packages.name, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )

    def run(self, *jobs: Job) -> list[int]:
        """Run these at the same time; returns their exit statuses."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = [(str(job.output), str(job.channel), dict(job.plan)) for job in jobs]
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        if not select.select([self._process.stdout], [], [], LIMIT_S)[0]:
            self.close()
            raise subprocess.TimeoutExpired("copies of the warm process", LIMIT_S)
        statuses: list[int] = json.loads(self._process.stdout.readline())
        return statuses

    def close(self) -> None:
        """End the process, and what it runs."""
        shared.cache_clear()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._packages.cleanup()


@functools.cache
def shared() -> Server:
    """The one server of this process, started when it is first wanted."""
    server = Server()
    atexit.register(server.close)
    return server


@dataclass
class Warm:
    """Runs scripts as a session does, each in a folder of its own."""

    folder: Path
    count: int = 0

    def run(
        self,
        script: Path,
        small: Miniature,
        data: World,
        traced: tuple[str, ...] = (),
        flips: Mapping[str, Any] | None = None,
    ) -> MiniatureRun:
        """Run a script once."""
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
        [status] = shared().run(Job(output, channel, plan))
        events = session._read_events(channel, data.val_tokens)
        ended = Outcome(Level.L1, "none", "exit", "", status, 0.0, 0.0, 0, output, channel, place)
        told = printed(output.read_bytes(), output.name)
        return MiniatureRun(ended, tuple(events.found), told, session._files(place), events.damaged)
