"""Hides memory in files that no process maps and no folder holds.

L1: reached|stopped disk
L2: contained
L3: contained
"""
from common import os, reached
import time

held = []
try:
    for number in range(32):
        held.append(os.memfd_create("x"))
        for _ in range(7):
            os.write(held[-1], bytes(1 << 20))
    reached("hides 224 MiB")
    time.sleep(0.5)
except OSError:
    pass
