"""Crashes with a core dump as large as it can make it.

L1: stopped signal
L2: stopped signal
L3: stopped signal
"""
from common import os
import resource

try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except (OSError, ValueError):
    pass
os.abort()
