"""Tries kinds of sockets that namespaces do not cover: packets, the hypervisor, the kernel's ciphers.

L1: reached|contained
L2: contained
L3: contained
"""
from common import reached
import socket

for family in (17, 40, 38, 21, 29, 31):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, 5):
        try:
            socket.socket(family, kind).close()
            reached(f"a socket of family {family}")
        except OSError:
            pass
