"""A virtual clock: schedules that follow wall time become the same in every run, and fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .events import replaced

# Of a sleep only this much is slept, so that threads that wait for each other get on.
SLEEP_S = 0.001
# What `perf_counter` and `monotonic` began at.
BOOT_S = 1_000.0


class Clock:
    """Advances by a little at every reading and by more at every optimizer step.

    Attributes:
        elapsed: virtual seconds since the start.
    """

    def __init__(self, settings: Mapping[str, float]) -> None:
        self.elapsed = 0.0
        self._start = settings.get("start_s", 1.7e9)
        self._per_call = settings.get("per_call_s", 0.001)
        self._per_step = settings.get("per_step_s", 0.05)
        self._lock = threading.Lock()

    def now(self) -> float:
        """Virtual seconds since the start, without advancing."""
        return self.elapsed

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the seconds since the start."""
        with self._lock:
            self.elapsed += seconds
            return self.elapsed

    def install(self) -> None:
        """Replace the readings of module `time`; libraries that hold the real functions keep them."""
        sleep = time.sleep
        for name, base in (
            ("time", self._start),
            ("perf_counter", BOOT_S),
            ("monotonic", BOOT_S),
            ("process_time", 0.0),
            ("thread_time", 0.0),
        ):
            setattr(time, name, self._reader(name, base))
            setattr(time, f"{name}_ns", self._reader_ns(name, base))

        def virtual_sleep(seconds: Any) -> None:
            replaced("time.sleep", "the virtual clock advances instead", exact=False)
            self.advance(float(seconds))
            sleep(min(float(seconds), SLEEP_S))

        time.sleep = virtual_sleep

    def step(self, *_: object) -> None:
        """One optimizer step has been made."""
        self.advance(self._per_step)

    def _reader(self, name: str, base: float) -> Callable[[], float]:
        def read() -> float:
            replaced(f"time.{name}", "a virtual clock", exact=False)
            return base + self.advance(self._per_call)

        return read

    def _reader_ns(self, name: str, base: float) -> Callable[[], int]:
        read = self._reader(f"{name}_ns", base)
        return lambda: int(read() * 1e9)
