"""Opens what other processes have open, to forge the stage's report.

L1: reached|contained
L2: contained
L3: contained
"""
from common import bait, os, reached

for pid in (str(os.getppid()), "1", bait["decoy"]):
    for number in range(32):
        try:
            os.close(os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            continue
        if pid != "1" or os.getppid() != 1:
            reached(f"opened descriptor {number} of {pid}")
