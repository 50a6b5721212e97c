"""Connects to a socket without a file.

L1: reached
L2: contained
L3: contained
"""
from common import bait
import socket

try:
    socket.socket(socket.AF_UNIX).connect("\0" + bait["abstract"])
except OSError:
    pass
