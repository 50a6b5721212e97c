"""Takes memory without end (up to a gigabyte).

L1: stopped memory
L2: stopped memory
L3: stopped memory
"""
import time

import common  # noqa: F401

held = []
for _ in range(256):
    held.append(bytearray(b"x") * (4 << 20))
    time.sleep(0.0005)
time.sleep(8)
