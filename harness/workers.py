"""Many independent tasks in processes of their own, so that a crash or a hang of one is told and ends nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
R = TypeVar("R")
# What every task imports: loaded once, before the first task starts.
PRELOADED: Final = ("harness.workers", "harness.atcommit")
POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """One task's end.

    Attributes:
        task: what was asked.
        result: what came back; None when the process ended without an answer.
        failure: why there is no result (`killed after 60 s`, `ended with status -9`), or "".
        seconds: time from start to answer.
        peak_bytes: the most memory that the process held, or None where the system does not tell.
    """

    task: T
    result: R | None
    failure: str
    seconds: float
    peak_bytes: int | None


@dataclass(slots=True)
class _Running(Generic[T]):
    task: T
    process: BaseProcess
    started: float


def each(function: Callable[[T], R], tasks: Sequence[T], *, workers: int, seconds: float) -> Iterator[Done[T, R]]:
    """Run a function on every task, some at a time, and yield each end as it comes.

    Args:
        function: a module's function, or a partial of one; it must not raise.
        tasks: its arguments.
        workers: processes at a time.
        seconds: how long one task may take before its process is killed.
    """
    context = _context()
    waiting = list(reversed(tasks))
    running: dict[Connection, _Running[T]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                task = waiting.pop()
                receiver, process = _start(context, function, task)
                running[receiver] = _Running(task, process, time.monotonic())
            ready = [item for item in wait(list(running), POLL_SECONDS) if isinstance(item, Connection)]
            late = [item for item, one in running.items() if time.monotonic() - one.started > seconds]
            for receiver in dict.fromkeys((*ready, *late)):
                one = running.pop(receiver)
                limit = 0.0 if receiver in ready else seconds
                yield _end(one, receiver, limit)
    finally:
        for receiver, one in running.items():
            _stop(one.process, receiver)


def _context() -> BaseContext:
    """Processes that start fast and inherit nothing from this one, where the system has them."""
    if sys.platform == "win32":
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _start(context: BaseContext, function: Callable[[T], R], task: T) -> tuple[Connection, BaseProcess]:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, task), daemon=True)  # type: ignore[attr-defined]
    process.start()
    sender.close()
    return receiver, process


def _work(sender: Connection, function: Callable[[T], R], task: T) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of a terminal: the parent tells it, and takes no answer any more.
    with contextlib.suppress(KeyboardInterrupt):
        result = function(task)
        sender.send((result, _peak_bytes()))
    sender.close()


def _end_with_parent() -> None:
    """A process that was ended by force stops none of those that it had started."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end(one: _Running[T], receiver: Connection, limit: float) -> Done[T, R]:
    """Take a task's answer; `limit` is the time after which it was given up, or zero."""
    result: R | None = None
    peak: int | None = None
    failure = f"killed after {limit:.0f} s" if limit else ""
    if not failure:
        try:
            result, peak = receiver.recv()
        except (EOFError, OSError):
            one.process.join()
            failure = f"the process ended with status {one.process.exitcode} and no answer"
    elapsed = time.monotonic() - one.started
    _stop(one.process, receiver)
    return Done(one.task, result, failure, elapsed, peak)


def _stop(process: BaseProcess, receiver: Connection) -> None:
    process.kill()
    process.join()
    with contextlib.suppress(OSError):
        receiver.close()


def _peak_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
