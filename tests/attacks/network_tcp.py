"""Connects by TCP.

L1: reached
L2: contained
L3: contained
"""
from common import bait
import socket

try:
    socket.create_connection(("127.0.0.1", int(bait["tcp"])), timeout=2).close()
except OSError:
    pass
