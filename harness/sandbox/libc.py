"""The few calls of the system that Python does not offer. Standard library only: the stage uses it."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any, Final

PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: Any) -> int:  # noqa: ANN401 - whatever the call takes
    """Make one system call.

    Raises:
        OSError: it failed.
    """
    call = _library().syscall
    call.restype = ctypes.c_long
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(call(ctypes.c_long(number), *wide))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """Change something of this process.

    Raises:
        OSError: the system refused.
    """
    arguments = [ctypes.c_ulong(one) for one in (first, second, 0, 0)]
    if _library().prctl(ctypes.c_int(option), *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
