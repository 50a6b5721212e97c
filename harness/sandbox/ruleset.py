"""Landlock: close every file but the given ones to this process and its children, for good. Standard library only.

Landlock looks at what a path ends at, so a symlink out of a folder leads nowhere. It does not cover changes of
mode, owner and times, nor `stat`; the system call filter takes care of the former, names and sizes stay visible.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from typing import Final

from harness.sandbox.libc import syscall

CREATE: Final = 444
ADD: Final = 445
RESTRICT: Final = 446
VERSION_FLAG: Final = 1
PATH_BENEATH: Final = 1
# Truncating a file that is open for reading only is covered from the third version on.
LOWEST_ABI: Final = 3
SCOPE_ABI: Final = 6
READ: Final = 0b1101  # execute, read file, read folder
READ_FOLDER: Final = 0b1000
READ_FILE: Final = 0b101
FILE_RIGHTS: Final = 0b111 | 1 << 14 | 1 << 15
DEVICES: Final = 1 << 6 | 1 << 11
REFER: Final = 1 << 13
REFER_ABI: Final = 2
EVERYTHING: Final = (1 << 13) - 1
ADDED: Final = ((REFER_ABI, REFER), (3, 1 << 14), (5, 1 << 15))  # refer, truncate, ioctl on devices
NET_ABI: Final = 4


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of Landlock here; 0 when there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return syscall(CREATE, None, 0, VERSION_FLAG)
    except OSError:
        return 0


def restrict(readable: list[str], writable: list[str], listable: list[str] | None = None) -> None:
    """Close everything else; needs `no_new_privs`.

    Raises:
        OSError: Landlock is too old, switched off, or refused.
    """
    abi = version()
    if abi < LOWEST_ABI:
        raise OSError(f"Landlock version {abi}, version {LOWEST_ABI} is needed")
    handled = EVERYTHING | sum(bit for since, bit in ADDED if abi >= since)
    attributes = _Ruleset(handled, 0b11 if abi >= NET_ABI else 0, 0b11 if abi >= SCOPE_ABI else 0)
    size = 24 if abi >= SCOPE_ABI else 16 if abi >= NET_ABI else 8
    ruleset = syscall(CREATE, ctypes.byref(attributes), size, 0)
    for path in readable:
        _allow(ruleset, path, READ)
    for path in writable:
        _allow(ruleset, path, handled)
    for path in listable or ():
        _allow(ruleset, path, READ_FOLDER)
    syscall(RESTRICT, ruleset, 0)
    os.close(ruleset)


def confine() -> None:
    """Keep this process and its children from tracing others, and from signalling them where Landlock knows how.

    Files stay as they are. Where Landlock has no scopes, closing the making of devices makes it stand between the
    processes; moving files between folders, which it then closes too unless it is opened again, stays open.

    Raises:
        OSError: there is no Landlock, or one that cannot do that.
    """
    abi = version()
    if abi < REFER_ABI:
        raise OSError(f"Landlock version {abi}, version {REFER_ABI} is needed")
    scoped = abi >= SCOPE_ABI
    attributes = _Ruleset(0, 0, 0b11) if scoped else _Ruleset(DEVICES | REFER, 0, 0)
    ruleset = syscall(CREATE, ctypes.byref(attributes), 24 if scoped else 8, 0)
    if not scoped:
        _allow(ruleset, "/", REFER)
    syscall(RESTRICT, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """One rule; what is not there needs none."""
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        folder = stat.S_ISDIR(os.fstat(parent).st_mode)
        rule = _Beneath(rights if folder else rights & FILE_RIGHTS, parent)
        syscall(ADD, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)
