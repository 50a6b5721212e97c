"""Writes beside the submission, outside of the scratch.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os

try:
    with open(os.path.dirname(bait["secret"]) + "/new", "w") as file:
        file.write("x")
except OSError:
    pass
