"""Changes its root, the first step of a well known escape.

L1: reached|contained
L2: contained
L3: contained
"""
from common import os, reached

os.mkdir("mine")
try:
    os.chroot("mine")
    reached("changed its root")
except OSError:
    pass
