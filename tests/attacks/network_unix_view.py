"""Connects to a socket file that lies among its own views.

L1: reached
L2: contained
L3: reached
"""
from common import bait
import socket

try:
    socket.socket(socket.AF_UNIX).connect(bait["view"] + "/unix")
except OSError:
    pass
