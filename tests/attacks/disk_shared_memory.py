"""Makes files without end in the shared memory, where names cost memory too.

L1: reached
L2: contained
L3: stopped disk
"""
from common import bait, os, reached
import time

made = []
try:
    for number in range(2000):
        made.append(f"/dev/shm/{bait['token']}-{number}")
        os.close(os.open(made[-1], os.O_WRONLY | os.O_CREAT, 0o600))
    time.sleep(2)
    reached("made 2000 files")
except OSError:
    pass
finally:
    for name in made:
        try:
            os.unlink(name)
        except OSError:
            pass
