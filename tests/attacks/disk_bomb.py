"""Writes files until there is no room (up to 64 MB).

L1: stopped disk
L2: stopped disk
L3: stopped disk
"""
import time

import common  # noqa: F401

for number in range(16):
    with open(f"file{number}", "wb") as file:
        for _ in range(4):
            file.write(b"x" * (1 << 20))
            file.flush()
            time.sleep(0.005)
time.sleep(8)
