"""Climbs out of the submission's folder.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, read

read(bait["view"] + "/../secret")
here = os.open(bait["view"], os.O_RDONLY | os.O_DIRECTORY)
try:
    os.close(os.open("../secret", os.O_RDONLY, dir_fd=here))
except OSError:
    pass
