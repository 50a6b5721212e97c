"""Asks for a name, which tells the outside something.

L1: reached|contained
L2: contained
L3: contained
"""
from common import os, reached
import signal
import socket

if os.fork() == 0:
    signal.alarm(2)
    try:
        socket.getaddrinfo("example.com", 80)
        reached("resolved a name")
    except OSError:
        pass
    os._exit(0)
os.wait()
