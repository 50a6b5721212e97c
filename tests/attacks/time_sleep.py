"""Sleeps past the end of its time.

wall: 1
L1: stopped wall
L2: stopped wall
L3: stopped wall
"""
import time

import common  # noqa: F401

time.sleep(60)
