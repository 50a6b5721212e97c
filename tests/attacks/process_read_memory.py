"""Reads the memory of a process outside by the call for that.

L1: reached
L2: contained
L3: contained
"""
from common import bait, call, ctypes, os, reached

number = {"x86_64": 310, "aarch64": 270}[os.uname().machine]
place = ctypes.create_string_buffer(8)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(place), 8)
for pid in (int(bait["decoy"]), os.getppid()):
    if call(number, pid, vector, 1, vector, 1, 0) in range(1 << 20) or ctypes.get_errno() == 14:
        reached(f"was let into {pid}")
