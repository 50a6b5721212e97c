"""The signal that asks a process to end, taken as the interruption that Ctrl-C is."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: its temporary files are removed, no process of it is left behind."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are the affair of the main thread, which may have its own way with them.
        yield
        return
    owner = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        # A copy of this process, which has nothing to clear away.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
