"""Looks for names, keys and paths in its environment, its arguments and its open files.

L1: contained
L2: contained
L3: contained
"""
from common import bait, os, reached

for name, value in os.environ.items():
    if name not in bait["known"].split() or (bait["token"] in value and name != "BAIT"):
        reached(f"found {name}")
for number in range(3, 256):
    if number != int(os.environ["PROBE_CHANNEL_FD"]):
        try:
            os.fstat(number)
            reached(f"inherited the open file {number}")
        except OSError:
            pass
