"""Sends a datagram.

L1: reached
L2: contained
L3: contained
"""
from common import bait
import socket

try:
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", int(bait["udp"])))
except OSError:
    pass
