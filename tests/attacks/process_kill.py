"""Kills a process outside.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os

try:
    os.kill(int(bait["decoy"]), 9)
except OSError:
    pass
