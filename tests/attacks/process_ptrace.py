"""Takes over other processes by ptrace: one outside, and its own parent.

L1: reached
L2: contained
L3: contained
"""
from common import bait, libc, os, reached
import time

for pid in (int(bait["decoy"]), os.getppid()):
    if libc.ptrace(16, pid, None, None) == 0:
        reached(f"holds {pid}")
        time.sleep(0.05)
        libc.ptrace(17, pid, None, None)
