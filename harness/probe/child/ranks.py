"""Starts every process of a world, as torchrun does, and ends all when one fails."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time

from .events import CHANNEL_VARIABLE, open_channel
from .plan import Plan

POLL_S = 0.1
# What the other processes still have to say when one has failed, and how long pipes are read after the end.
GRACE_S = 5.0
DRAIN_S = 1.0
READ_BYTES = 1 << 16
LONGEST_LINE_BYTES = 1 << 23


class Relay:
    """Passes on what processes write, in whole lines: those of two processes do not mix."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._rest: dict[int, bytes] = {}

    def add(self, source: int, target: int) -> None:
        """Pass on from one descriptor to another."""
        self._rest[source] = b""
        self._selector.register(source, selectors.EVENT_READ, target)

    @property
    def ended(self) -> bool:
        """Whether nobody can write any more."""
        return not self._selector.get_map()

    def turn(self) -> bool:
        """Wait a moment, pass on what there is; returns whether there was anything."""
        ready = self._selector.select(POLL_S)
        for key, _ in ready:
            data = os.read(key.fd, READ_BYTES)
            lines, newline, rest = (self._rest[key.fd] + data).rpartition(b"\n")
            lines += newline
            if rest and (not data or len(rest) > LONGEST_LINE_BYTES):
                lines, rest = lines + rest + b"\n", b""
            self._rest[key.fd] = rest
            _write(key.data, lines)
            if not data:
                self._selector.unregister(key.fd)
                os.close(key.fd)
        return bool(ready)


def launch(plan: Plan) -> int:
    """Run every rank of a plan's world; returns the status of the one that failed first, or 0."""
    outer = int(os.environ.get(CHANNEL_VARIABLE, "-1"))
    relay = Relay()
    with tempfile.TemporaryDirectory(prefix="ranks-") as place:
        store = os.path.join(place, "store")
        plans = [dataclasses.replace(plan, copied={}, rank=rank, store=store) for rank in range(plan.world_size)]
        processes = [_start(each, relay, outer) for each in plans]
        status = _follow(processes, relay)
    open_channel(lambda: 0.0).emit("ranks", statuses=[process.wait() for process in processes])
    return status & 0xFF


def _start(plan: Plan, relay: Relay, outer: int) -> subprocess.Popen[bytes]:
    """Start one rank with pipes of its own."""
    reading, writing = os.pipe()
    environment = os.environ | {CHANNEL_VARIABLE: str(writing)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", str(__package__), json.dumps(dataclasses.asdict(plan))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[writing],
        bufsize=0,
    )
    os.close(writing)
    if process.stdout is not None:
        relay.add(os.dup(process.stdout.fileno()), sys.stdout.fileno())
        process.stdout.close()
    relay.add(reading, outer)
    return process


def _follow(processes: list[subprocess.Popen[bytes]], relay: Relay) -> int:
    """Until all have ended; when one has failed, the others soon. Returns its status."""
    failed, since = 0, 0.0
    while any(process.poll() is None for process in processes):
        relay.turn()
        if not failed:
            failed = next((process.returncode for process in processes if process.poll()), 0)
            since = time.monotonic()
        elif time.monotonic() - since > GRACE_S:
            for process in processes:
                process.kill()
    # What they have started may hold the pipes.
    over = time.monotonic() + DRAIN_S
    while not relay.ended and (relay.turn() or time.monotonic() < over):
        pass
    return failed or next((process.returncode for process in processes if process.returncode), 0)


def _write(target: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data and target >= 0:
            data = data[os.write(target, data) :]
