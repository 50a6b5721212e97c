"""Gives a file outside a second name in the scratch and reads that.

L1: reached|contained
L2: contained
L3: contained
"""
from common import bait, os, read

try:
    os.link(bait["secret"], "mine")
except OSError:
    pass
read("mine")
