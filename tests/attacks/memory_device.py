"""Fills the shared memory file system.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached

path = f"/dev/shm/{bait['token']}"
try:
    for number in range(3):
        with open(f"{path}{number}", "wb") as file:
            for _ in range(7):
                file.write(bytes(1 << 20))
                file.flush()
    reached("stored 21 MiB")
except OSError:
    pass
for number in range(3):
    try:
        os.unlink(f"{path}{number}")
    except OSError:
        pass
