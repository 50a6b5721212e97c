"""What the program's process does to itself before it becomes the program. Standard library only.

The order matters: limits, then privileges, then files (Landlock), then calls (the filter, which would refuse the
rest).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Final

from harness.sandbox import libc, ruleset, seccomp
from harness.sandbox.spec import Spec

LAST_CAPABILITY: Final = 63
CAPABILITY_VERSION: Final = 0x20080522
CAPSET: Final = {"x86_64": 126, "aarch64": 91}
NO_ROOT_LOCKED: Final = 0b11 | 0b1100  # user 0 has no powers, and changing the user keeps none
HIGHEST_DESCRIPTOR: Final = 4096


def all_of_it(spec: Spec, keep_open: tuple[int, ...]) -> None:
    """Restrict this process.

    Args:
        spec: what is asked.
        keep_open: the numbers of files that stay open; every other one but the standard three is closed.

    Raises:
        OSError: the system refused something that was asked for.
    """
    _descriptors(keep_open, listens=spec.listens)
    _limits(spec)
    for name in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)):
        signal.signal(name, signal.SIG_DFL)
    os.umask(0o077)
    if not sys.platform.startswith("linux"):
        return
    if spec.landlock:
        _no_powers()
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if spec.landlock:
        own = [f"/proc/{os.getpid()}"]
        ruleset.restrict([*spec.readable, *own], spec.writable, spec.listable)
    if spec.calls == "own":
        # The stage stands in the same process namespace.
        with contextlib.suppress(OSError):
            ruleset.confine()
    if spec.calls != "none":
        scoped = spec.landlock and ruleset.version() >= ruleset.SCOPE_ABI
        seccomp.apply(spec.calls, signals_scoped=scoped)


def _descriptors(keep_open: tuple[int, ...], *, listens: bool) -> None:
    """Nothing is inherited but standard input (empty, unless the program listens), output, error and the given ones."""
    if not listens:
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
    low = 3
    for number in sorted(one for one in keep_open if one >= low):
        os.closerange(low, number)
        low = number + 1
    os.closerange(low, HIGHEST_DESCRIPTOR)


def _limits(spec: Spec) -> None:
    for name, (soft, hard) in spec.rlimits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            _limit(number, soft, hard)


def _limit(number: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, highest = resource.getrlimit(number)
    cap = hard if highest == resource.RLIM_INFINITY else min(hard, highest)
    # Some systems refuse single limits (macOS does for the data segment): the watcher outside is the other net.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(number, (min(soft, cap), cap))


def _no_powers() -> None:
    """Drop every capability, also those that user 0 would get back with the next program."""
    for number in range(LAST_CAPABILITY + 1):
        with contextlib.suppress(OSError):  # unknown here, or not ours to drop: then we have none either
            libc.prctl(libc.PR_CAPBSET_DROP, number)
    with contextlib.suppress(OSError):
        libc.prctl(libc.PR_SET_SECUREBITS, NO_ROOT_LOCKED)
    with contextlib.suppress(OSError):
        libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    libc.syscall(CAPSET[os.uname().machine], header, nothing)
