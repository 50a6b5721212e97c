"""Stops itself, and every process that it starts.

wall: 1
L1: stopped wall
L2: stopped wall
L3: stopped wall
"""
from common import os

if os.fork() == 0:
    os.setsid()
os.kill(os.getpid(), 19)
