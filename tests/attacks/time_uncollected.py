"""Uses processor time in short processes that nobody collects, so that it is counted nowhere.

L1: stopped cpu|stopped wall
L2: stopped cpu|stopped wall
L3: stopped cpu|stopped wall
"""
from common import os
import signal
import time

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        os._exit(0)
    time.sleep(0.25)
