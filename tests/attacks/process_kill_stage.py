"""Kills the process that watches over it, after leaving a daemon behind.

L1: stopped signal
L2: contained
L3: contained|stopped signal
"""
from common import bait, os
import sys
import time

if os.fork() == 0:
    os.setsid()
    os.execv(sys.executable, [sys.executable, "-ISc", "import time; time.sleep(30)", bait["token"]])
time.sleep(0.2)
try:
    os.kill(os.getppid(), 9)
    time.sleep(0.2)
except OSError:
    pass
