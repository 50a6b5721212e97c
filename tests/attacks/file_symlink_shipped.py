"""Reads a file outside through a link that the submission ships.

L1: reached
L2: contained
L3: contained
"""
from common import bait, read

read(bait["link"])
