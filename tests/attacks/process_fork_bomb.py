"""Doubles itself again and again (up to a thousand).

L1: stopped processes
L2: stopped processes
L3: stopped processes
"""
from common import os
import time

for _ in range(10):
    try:
        os.fork()
    except OSError:
        pass
time.sleep(8)
