"""Makes one file that is too large.

L1: stopped disk|contained
L2: stopped disk|contained
L3: stopped disk|contained
"""
from common import os, reached

handle = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600)
try:
    for _ in range(12):
        os.write(handle, b"x" * (1 << 20))
    reached("wrote 12 MiB into one file")
except OSError:
    pass
