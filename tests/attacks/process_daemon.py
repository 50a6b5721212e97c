"""Leaves a daemon: a session of its own, and no parent.

L1: contained
L2: contained
L3: contained
"""
from common import bait, os
import sys
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-ISc", "import time; time.sleep(30)", bait["token"]])
    os._exit(0)
os.wait()
time.sleep(0.1)
