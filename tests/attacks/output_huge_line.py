"""Prints one line without end.

L1: stopped output
L2: stopped output
L3: stopped output
"""
import sys

import common  # noqa: F401

while True:
    sys.stderr.write("x" * 65536)
