"""Makes files without end (up to five thousand).

L1: stopped disk
L2: stopped disk
L3: stopped disk
"""
from common import os
import time

for number in range(5000):
    os.close(os.open(f"file{number}", os.O_WRONLY | os.O_CREAT, 0o600))
time.sleep(8)
