"""Connects to a socket file.

L1: reached
L2: contained
L3: contained
"""
from common import bait
import socket

try:
    socket.socket(socket.AF_UNIX).connect(bait["unix"])
except OSError:
    pass
