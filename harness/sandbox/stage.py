"""The stage: the small trusted process that starts the program, waits, sweeps and brings files out.

It runs inside of the namespaces where there are some, and is the *subreaper* of all that the program starts, so
that no daemon escapes it. It talks to the harness through two pipes: orders (the spec, then `S` for "stop"; the
end of the pipe says that the harness is gone: then everything ends), and answers. Standard library only, since it
runs with nothing else in reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Final, NoReturn

from harness.sandbox import keep, libc, restrict
from harness.sandbox.spec import STOP, Spec, load

POLL_SECONDS: Final = 0.02
SWEEP_SECONDS: Final = 10.0
READY: Final = b"ready\n"
REFUSED: Final = 125


def main() -> None:
    """Run one program; the arguments are the numbers of the pipes: orders, answers, and the channel (or -1)."""
    orders, answer, channel = map(int, sys.argv[1:4])
    for number in (orders, answer):
        os.set_inheritable(number, False)  # noqa: FBT003 - the only way to call it
    if sys.platform.startswith("linux"):
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
    os.write(answer, READY)
    spec = load(_exactly(orders, int(_exactly(orders, 8))))
    refused = _prepare(spec)
    pid, refused = (0, refused) if refused else _start(spec, channel)
    if channel > 2:
        os.close(channel)
    # The program alone holds the output: its end is the end of the output.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    status, collect = (None, False) if refused else _wait(pid, orders)
    survivors = _sweep(pid)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {
        "refused": refused,
        "returncode": status,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "survivors": 0 if status is None else survivors,
        "full": os.statvfs(spec.scratch).f_bavail == 0,
    }
    os.write(answer, json.dumps(report).encode("ascii") + b"\n")
    if collect:
        keep.send(spec, answer)


def _exactly(orders: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(orders, count - len(data))
        if not piece:
            sys.exit(REFUSED)
        data += piece
    return data


def _prepare(spec: Spec) -> str:
    """Make folders and links; returns what went wrong, or ""."""
    try:
        for folder in spec.folders:
            os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - fewer imports, faster start
        for path, target in spec.links.items():
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
            os.symlink(target, path)  # noqa: PTH211
    except OSError as error:
        return f"the scratch cannot be prepared: {error}"
    return ""


def _start(spec: Spec, channel: int) -> tuple[int, str]:
    """Start the program; returns its number and "", or why it could not be started."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(spec, channel, tell)
    os.close(tell)
    problem = b""
    while piece := os.read(told, 4096):
        problem += piece
    os.close(told)
    return pid, problem.decode("utf-8", "replace")


def _become(spec: Spec, channel: int, tell: int) -> NoReturn:
    """In the child: restrict, and turn into the program. Whatever goes wrong is told, and ends it."""
    try:
        os.setsid()
        if channel > 2:
            os.set_inheritable(channel, True)  # noqa: FBT003 - the only way to call it
        os.chdir(spec.workdir)
        restrict.all_of_it(spec, (tell, channel))
        os.execvpe(spec.argv[0], spec.argv, spec.environment)  # noqa: S606 - this is its purpose
    except BaseException as error:  # noqa: BLE001 - nothing of the stage may run twice
        with contextlib.suppress(OSError):
            os.write(tell, f"{type(error).__name__}: {error}".encode())
    os._exit(REFUSED)


def _wait(pid: int, orders: int) -> tuple[int | None, bool]:
    """Wait for the program's end or for a command; returns its status if it ended, and whether to bring out files."""
    while True:
        status = _reap(pid)
        if status is not None:
            return status, True
        ready, _, _ = select.select([orders], [], [], POLL_SECONDS)
        if ready:
            return None, os.read(orders, 1) == STOP


def _reap(pid: int) -> int | None:
    """Collect what has ended; returns the program's exit status once it has."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            found = os.waitstatus_to_exitcode(status)


def _sweep(program: int) -> int:
    """End everything below us; returns how many were alive."""
    first = _below()
    if program and not os.path.isdir("/proc/self"):  # noqa: PTH112 - a system without a process table: its group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program, signal.SIGKILL)
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        alive = _below()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that they start no new ones meanwhile
            for pid in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        _reap(0)
        if not alive and not _has_children():
            break
        time.sleep(POLL_SECONDS / 4)
    return len(first)


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _below() -> list[int]:
    """Descendants that are no zombies, by the process table; empty where there is none."""
    parents: dict[int, list[int]] = {}
    try:
        numbers = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    except OSError:
        return []
    dead = set()
    for pid in numbers:
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b")")[2].split()
            parents.setdefault(int(fields[1]), []).append(pid)
            if fields[0] in {b"Z", b"X"}:
                dead.add(pid)
    found, waiting = [], [os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        waiting += children
        found += [pid for pid in children if pid not in dead]
    return found
