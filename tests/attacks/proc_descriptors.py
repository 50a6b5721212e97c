"""Opens what other processes have open, to forge the stage's report.

L1: reached|contained
L2: contained
L3: contained
"""
from common import bait, os, reached

own = {os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
for pid in (str(os.getppid()), "1", bait["decoy"]):
    for number in range(32):
        path = f"/proc/{pid}/fd/{number}"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            if os.readlink(path) not in own:
                reached(f"opened descriptor {number} of {pid}")
        except OSError:
            continue
