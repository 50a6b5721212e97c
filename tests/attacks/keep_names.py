"""Leaves names that climb, fool terminals or are not text, a pipe and a hole where files are brought out from.

L1: contained
L2: contained
L3: contained
"""
from common import os

os.mkdir("kept")
os.mkfifo("kept/pipe")
for name in (b"kept/\x1b[2J", b"kept/a\nb", b"kept/\xff\xfe", b"kept/..\\..\\x", b"kept/" + "‮gnp.exe".encode()):
    with open(name, "wb") as file:
        file.write(b"x")
with open("kept/hole", "wb") as file:
    try:
        file.truncate(1 << 40)
    except OSError:
        pass
