"""Takes memory as shared pages, which belong to nobody in particular.

L1: stopped memory
L2: stopped memory
L3: stopped memory
"""
import mmap
import time

import common  # noqa: F401

held = mmap.mmap(-1, 256 << 20)
for offset in range(0, 256 << 20, 1 << 20):
    held[offset : offset + (1 << 20)] = b"x" * (1 << 20)
    time.sleep(0.0005)
time.sleep(8)
