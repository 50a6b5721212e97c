"""A filter of system calls, for this process and its children, for good. Standard library only.

The filter is a small program for the kernel (classic BPF): it looks at the call's number and, for some calls, at
the low half of an argument. Everything newer than what we know is answered as missing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from harness.sandbox import syscalls
from harness.sandbox.libc import PR_SET_DUMPABLE, syscall

LOAD, EQUAL, ANY_BIT, GREATER, RETURN = 0x20, 0x15, 0x45, 0x25, 0x06
ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000  # the low half is the error number; zero means "done"
KILL: Final = 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
NEWEST: Final = 451
# architecture: its mark for the kernel, its numbers, the number of `seccomp` itself
MACHINES: Final = {
    "x86_64": (0xC000003E, syscalls.X86_64, 317),
    "aarch64": (0xC00000B7, syscalls.GENERIC, 277),
}
NAMESPACES: Final = 0x7E020080  # CLONE_NEW*: mount, cgroup, uts, ipc, user, pid, net; and time
FAMILIES: Final = (1, 2, 10, 16)  # unix, IPv4, IPv6, netlink
TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into a terminal
# A file can be told to signal a process: F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP.
OWNER: Final = (8, 10, 15)
OWNER_BY_IOCTL: Final = (0x8901, 0x8902)


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that is refused.

    Attributes:
        name: the call.
        error: the error number that it ends with.
        argument: which argument decides; -1: none does.
        unless: it is allowed when the argument is one of these.
        when: it is refused only when the argument is one of these.
        bits: it is refused only when one of these bits is set.
        otherwise: the error number of what is not refused by these; -1: it is allowed.
    """

    name: str
    error: int = errno.EPERM
    argument: int = -1
    unless: tuple[int, ...] = ()
    when: tuple[int, ...] = ()
    bits: int = 0
    otherwise: int = -1


def rules(calls: str, *, signals_scoped: bool) -> list[Rule]:
    """What is refused.

    Args:
        calls: `own` (network and processes are the sandbox's own) or `shared` (they are the machine's).
        signals_scoped: whether the kernel confines signals by other means.
    """
    found = [Rule(name) for name in syscalls.group("escape")]
    found += [Rule(name, errno.ENOSYS) for name in syscalls.group("absent")]
    found += [Rule("clone", argument=0, bits=NAMESPACES), Rule("ioctl", argument=1, when=TERMINAL_INPUT)]
    found += [Rule(name, argument=0, unless=(0,)) for name in syscalls.group("first")]
    found += [Rule(name, argument=1, unless=(0,)) for name in syscalls.group("second")]
    found += [Rule(name, errno.EOPNOTSUPP) for name in syscalls.group("attribute")]
    # The watcher outside reads what the process table says about the program.
    found += [Rule("prctl", argument=0, when=(PR_SET_DUMPABLE,))]
    if calls == "own":
        return [*found, Rule("socket", errno.EAFNOSUPPORT, argument=0, unless=FAMILIES)]
    found += [Rule(name, 0) for name in syscalls.group("metadata")]
    # Without times it is the first step of `Path.touch`, which makes the file when told that it cannot.
    found += [Rule("utimensat", argument=2, when=(0,), otherwise=0)]
    found += [Rule(name) for name in ("socket", *syscalls.group("queue"))]
    if not signals_scoped:
        found += [Rule(name, argument=0, unless=(0, os.getpid())) for name in syscalls.group("signal")]
        found += [Rule("fcntl", argument=1, when=OWNER), Rule("ioctl", argument=1, when=OWNER_BY_IOCTL)]
    return found


def program(found: Iterable[Rule], machine: str) -> bytes:
    """The filter for the kernel.

    Raises:
        OSError: no filter for this kind of machine.
    """
    if machine not in MACHINES:
        raise OSError(f"no system call filter for {machine}")
    mark, numbers, _ = MACHINES[machine]
    code = [_step(LOAD, ARCHITECTURE), _step(EQUAL, mark, yes=1), _step(RETURN, KILL), _step(LOAD, NUMBER)]
    for rule in found:
        if rule.name in numbers:
            body = _body(rule)
            code += [_step(EQUAL, numbers[rule.name], no=len(body)), *body]
    # x32 calls have a bit far above every number: they are "newer" too.
    code += [_step(GREATER, NEWEST, no=1), _step(RETURN, REFUSE | errno.ENOSYS), _step(RETURN, ALLOW)]
    return b"".join(code)


def _body(rule: Rule) -> list[bytes]:
    """What happens after the number has been found to be the rule's; unless refused, the next rule is looked at."""
    refuse = _step(RETURN, REFUSE | rule.error)
    if rule.argument < 0:
        return [refuse]
    other = _step(LOAD, NUMBER) if rule.otherwise < 0 else _step(RETURN, REFUSE | rule.otherwise)
    load = _step(LOAD, ARGUMENTS + 8 * rule.argument)
    if rule.bits:
        return [load, _step(ANY_BIT, rule.bits, no=1), refuse, other]
    values = rule.unless or rule.when
    # A match jumps over the rest of the tests, and where it allows over the refusal too.
    over = 1 if rule.unless else 0
    tests = [_step(EQUAL, value, yes=len(values) - 1 - index + over) for index, value in enumerate(values[:-1])]
    tests.append(_step(EQUAL, values[-1], yes=over, no=1 - over))
    return [load, *tests, refuse, other]


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def apply(calls: str, *, signals_scoped: bool) -> None:
    """Filter from now on; needs `no_new_privs`.

    Raises:
        OSError: the system has no filters, or none for this kind of machine.
    """
    machine = platform.machine()
    code = program(rules(calls, signals_scoped=signals_scoped), machine)
    given = _Program(len(code) // 8, code)
    syscall(MACHINES[machine][2], 1, 0, ctypes.byref(given))
