"""Prints what terminals obey, and looks for one to write and type into.

L1: contained
L2: contained
L3: contained
"""
from common import os, reached
import fcntl

print("\x1b]0;owned\x07\x1b[2J\x1b[31m\x1b]8;;http://x\x1b\\link\x1b[6n\x9b1A", flush=True)
for number in (0, 1, 2):
    if os.isatty(number):
        reached("has a terminal")
    try:
        fcntl.ioctl(number, 0x5412, b"x")
        reached("typed into a terminal")
    except OSError:
        pass
try:
    os.close(os.open("/dev/tty", os.O_RDWR))
    reached("opened the terminal")
except OSError:
    pass
