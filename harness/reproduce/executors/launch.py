"""Runs inside the child: sets limits on itself, asks to die with its parent, then becomes the command.

Started as a file by path, so that it imports the standard library only. A hook between fork and exec would do
the same, but is not safe in a program with threads (the progress display has one).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """`launch.py FILE_BYTES COMMAND...`: no core dumps, no file above FILE_BYTES."""
    file_bytes = int(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = file_bytes if hard == resource.RLIM_INFINITY else min(file_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        # A harness that is killed itself cannot sweep up any more.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the purpose of this file


if __name__ == "__main__":
    main()
