"""Starts threads without end (up to three thousand).

L1: contained|stopped processes|stopped memory
L2: contained|stopped processes|stopped memory
L3: contained|stopped processes|stopped memory
"""
import threading
import time

import common  # noqa: F401

threading.stack_size(64 << 10)
try:
    for _ in range(3000):
        threading.Thread(target=time.sleep, args=(1.0,), daemon=True).start()
except RuntimeError:
    pass
