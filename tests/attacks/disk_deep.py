"""Makes folders in folders, deeper than any path can be long, and hides data at the bottom.

L1: stopped disk
L2: stopped disk
L3: stopped disk
"""
from common import os
import time

for _ in range(400):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
for _ in range(200):
    os.mkdir("e")
    os.chdir("e")
time.sleep(8)
