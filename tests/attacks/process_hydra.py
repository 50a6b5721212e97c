"""Leaves daemons that ignore every signal and start another one as soon as one of them ends.

L1: contained
L2: contained
L3: contained
"""
from common import bait, os
import sys
import time

program = """
import os, signal, sys, time
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
end = time.monotonic() + 8
while time.monotonic() < end:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child: os.waitpid(child, 0)
    else: os.setsid(); time.sleep(8); os._exit(0)
"""
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execv(sys.executable, [sys.executable, "-ISc", program, bait["token"]])
time.sleep(0.3)
