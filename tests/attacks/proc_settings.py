"""Changes settings of the kernel through /proc/sys.

L1: reached|contained
L2: contained
L3: contained
"""
from common import os, reached

for name in ("kernel/core_pattern", "kernel/hostname", "vm/overcommit_memory"):
    try:
        os.close(os.open(f"/proc/sys/{name}", os.O_WRONLY))
        reached(f"opened {name} for writing")
    except OSError:
        pass
