"""Stops the process that watches over it, and takes all memory.

L1: stopped memory
L2: stopped memory
L3: stopped memory
"""
from common import os
import time

try:
    os.kill(os.getppid(), 19)
except OSError:
    pass
held = []
for _ in range(100):
    held.append(bytearray(b"x") * (4 << 20))
    time.sleep(0.001)
time.sleep(30)
