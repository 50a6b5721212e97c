"""Takes memory in many processes, a little in each.

L1: stopped memory
L2: stopped memory
L3: stopped memory
"""
from common import os
import time

for _ in range(8):
    if os.fork() == 0:
        break
held = bytearray(b"x") * (24 << 20)
time.sleep(8)
