"""Writes into the submission.

L1: reached
L2: contained
L3: contained
"""
from common import bait

for mode in ("w", "a"):
    try:
        with open(bait["view"] + "/train_gpt.py", mode) as file:
            file.write("x")
    except OSError:
        pass
