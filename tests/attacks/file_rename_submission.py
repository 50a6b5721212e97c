"""Renames and removes files of the submission.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os

for act in (
    lambda: os.rename(bait["view"] + "/ordinary", bait["view"] + "/other"),
    lambda: os.unlink(bait["view"] + "/link"),
):
    try:
        act()
    except OSError:
        pass
