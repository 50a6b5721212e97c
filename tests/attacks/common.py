"""What hostile scripts share: where the bait lies, and how they boast."""

import ctypes
import json
import os

bait = json.loads(os.environ["BAIT"])
libc = ctypes.CDLL(None, use_errno=True)


def reached(what):
    """Say that something got through."""
    os.write(int(os.environ["PROBE_CHANNEL_FD"]), (json.dumps({"reached": str(what)}) + "\n").encode())


def read(path):
    """Boast when a file can be read."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return
    reached(f"read {len(data)} bytes")


def call(number, *arguments):
    """A system call: 0 or more, or the negative error number."""
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    return -ctypes.get_errno() if result < 0 else result
