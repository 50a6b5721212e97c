"""Makes the kernel hold page tables for pages that are not there (up to 400 MB of them).

L1: stopped memory|stopped cpu
L2: stopped memory|stopped cpu
L3: stopped memory|stopped cpu
"""
from common import ctypes, libc
import time

size = 200 << 30
libc.mmap.restype = ctypes.c_void_p
start = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, ctypes.c_long(0))
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 15)
for offset in range(0, size, 2 << 20):
    ctypes.c_char.from_address(start + offset).value
    if offset % (512 << 20) == 0:
        time.sleep(0.001)
time.sleep(8)
