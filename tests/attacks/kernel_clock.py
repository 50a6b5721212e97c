"""Sets the clock (to a time that is none, so that nothing changes where it may).

L1: reached
L2: contained
L3: contained
"""
from common import call, ctypes, os, reached

never = (ctypes.c_long * 2)(0, 2_000_000_000)
number = {"x86_64": 227, "aarch64": 112}[os.uname().machine]
if call(number, 0, never) in {0, -22}:
    reached("may ask for it")
