"""Makes a device of its own, to read the machine's memory or disk past all paths.

L1: reached|contained
L2: contained
L3: contained
"""
from common import os, reached
import stat

try:
    os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    with open("device", "rb") as file:
        file.read(1)
    reached("made a device and read it")
except OSError:
    pass
