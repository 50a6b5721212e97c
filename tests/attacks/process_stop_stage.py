"""Stops the process that watches over it, and goes on.

wall: 1
L1: stopped wall
L2: stopped wall
L3: stopped wall
"""
from common import os
import time

try:
    os.kill(os.getppid(), 19)
except OSError:
    pass
time.sleep(30)
