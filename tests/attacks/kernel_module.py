"""Loads a module into the kernel (an empty one, so that nothing changes where it may).

L1: reached|contained
L2: contained
L3: contained
"""
from common import call, os, reached

number = {"x86_64": 175, "aarch64": 105}[os.uname().machine]
if call(number, b"", 0, b"") not in {-1, -38}:
    reached("may ask for it")
