"""Makes a link in the scratch to a file outside and reads through it.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, read

os.symlink(bait["secret"], "link")
read("link")
