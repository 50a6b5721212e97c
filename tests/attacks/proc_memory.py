"""Opens the memory of a process outside.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached

for pid in (bait["decoy"], str(os.getppid())):
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
        reached(f"opened the memory of {pid}")
    except OSError:
        pass
