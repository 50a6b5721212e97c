"""The sum of the probabilities of every token at one place: a copy of the process for each, until its score counts."""

from __future__ import annotations

import math
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

# So many copies without a score, and no more are made.
FAILURES = 20
COPY_SECONDS = 60.0
# Nats that are all multiples of this fraction come from a coarse type.
COARSE = 8192
TOLD = 12
SCORE = struct.Struct("<d")


class Sum:
    """Enumerates the vocabulary at one place.

    Args:
        order: `tokens`: what to put there, the likely ones first; `stop`: the sum at which it ends; `coarse_stop`: the
            same where nats are coarse; `limit`: seconds of wall time.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._nats: dict[int, float] = {}
        self._failed: list[int] = []

    def run(self, become: Callable[[int, int], None]) -> bool:
        """Make the copies, one after the other; returns whether this is one of them.

        Args:
            become: called in the copy, with its token and the writing end of a pipe for its score.
        """
        end = now() + float(self._order["limit"])
        for token in self._order["tokens"]:
            left = end - now()
            if left <= 0 or self._total() > self._stop() or len(self._failed) > FAILURES:
                break
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                become(token, writing)
                return True
            os.close(writing)
            nats = _heard(pid, reading, min(left, COPY_SECONDS))
            if nats is None:
                self._failed.append(token)
            else:
                self._nats[token] = nats
        return False

    def report(self) -> dict[str, Any]:
        """What it came to."""
        most = sorted(self._nats.items(), key=lambda item: item[1])[:TOLD]
        return {
            "total": round(self._total(), 9),
            "count": len(self._nats),
            "failed": len(self._failed),
            "coarse": self._coarse(),
            "largest": [[token, round(nats, 9)] for token, nats in most],
            "first": [[token, round(nats, 9)] for token, nats in list(self._nats.items())[:1]],
        }

    def _total(self) -> float:
        return math.fsum(math.exp(-nats) for nats in self._nats.values())

    def _stop(self) -> float:
        return float(self._order["coarse_stop" if self._coarse() else "stop"])

    def _coarse(self) -> bool:
        whole = sum(nats * COARSE == round(nats * COARSE) for nats in self._nats.values())
        return whole > len(self._nats) / 2


def tell(writing: int, nats: float) -> None:
    """In a copy: send the score, and end."""
    os.write(writing, SCORE.pack(nats))
    os._exit(0)


def now() -> float:
    """Seconds of the real clock; the virtual one stands for the usual readings."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _heard(pid: int, reading: int, seconds: float) -> float | None:
    """The score of a copy; None where it ended without one."""
    ready, _, _ = select.select([reading], [], [], seconds)
    data = os.read(reading, SCORE.size) if ready else b""
    os.close(reading)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    nats = SCORE.unpack(data)[0] if len(data) == SCORE.size else math.nan
    return float(nats) if nats - nats == 0 else None
