"""Reads the environment of other processes.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached

try:
    everyone = [name for name in os.listdir("/proc") if name.isdecimal()]
except OSError:
    everyone = []
for pid in {"1", str(os.getppid()), bait["decoy"], *everyone}:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if b"TOKEN=" + bait["token"].encode() in file.read():
                reached("read the environment of a process outside")
    except OSError:
        pass
