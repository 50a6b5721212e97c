"""Empties a file of the submission without opening it for writing.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached

try:
    os.truncate(bait["view"] + "/ordinary", 0)
except OSError:
    pass
if os.stat(bait["view"] + "/ordinary").st_size == 0:
    reached("emptied a file")
