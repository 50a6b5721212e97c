"""Uses processor time in many short processes, which nobody sees for long.

L1: stopped cpu
L2: stopped cpu
L3: stopped cpu
"""
from common import os
import time

while True:
    pid = os.fork()
    if pid == 0:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
