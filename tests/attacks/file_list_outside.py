"""Lists folders outside, up to the root, and looks for the bait.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached

folder = os.path.dirname(bait["secret"])
while True:
    try:
        if os.path.basename(bait["secret"]) in os.listdir(folder):
            reached("listed the folder outside")
    except OSError:
        pass
    if folder == "/":
        break
    folder = os.path.dirname(folder)
