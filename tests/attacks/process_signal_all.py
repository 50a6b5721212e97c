"""Signals every process there is, with one that does no harm; a stopped one outside shows whether it arrives.

L1: not run
L2: contained
L3: contained
"""
from common import os
import signal

try:
    os.kill(-1, signal.SIGCONT)
except OSError:
    pass
