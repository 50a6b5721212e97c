"""Forbids others to look at it, and fills the disk with files that have no name any more.

L1: stopped disk|contained
L2: stopped disk
L3: contained
"""
from common import libc, os
import time

libc.prctl(4, 0, 0, 0, 0)
held = []
try:
    # With a file system of its own it gets an error as soon as there is no room.
    for number in range(16):
        held.append(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600))
        os.unlink("file")
        for _ in range(4):
            os.write(held[-1], b"x" * (1 << 20))
            time.sleep(0.005)
    time.sleep(4)
except OSError:
    pass
