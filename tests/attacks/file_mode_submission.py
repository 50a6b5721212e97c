"""Changes mode and times of the submission's folder.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached

before = os.stat(bait["view"])
for act in (lambda: os.chmod(bait["view"], 0o711), lambda: os.utime(bait["view"], (1, 1))):
    try:
        act()
    except OSError:
        pass
after = os.stat(bait["view"])
if (after.st_mode, after.st_mtime) != (before.st_mode, before.st_mtime):
    reached("changed mode or times")
