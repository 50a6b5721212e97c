"""Opens a file by its number in the file system, past all paths.

L1: reached|contained
L2: contained
L3: contained
"""
from common import bait, call, ctypes, os, reached

numbers = {"x86_64": (303, 304), "aarch64": (264, 265)}[os.uname().machine]
handle = (ctypes.c_uint32 * 40)(128)
mount = ctypes.c_int()
if call(numbers[0], -100, bait["secret"].encode(), handle, ctypes.byref(mount), 0) >= 0:
    folder = os.open("/", os.O_RDONLY)
    if call(numbers[1], folder, handle, os.O_RDONLY) >= 0:
        reached("opened by handle")
