"""Goes through the doors that the process table offers: /proc/N/root and /proc/N/cwd.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, read

for pid in ("self", "1", str(os.getppid()), bait["decoy"]):
    read(f"/proc/{pid}/root{bait['secret']}")
    read(f"/proc/{pid}/cwd/../secret")
