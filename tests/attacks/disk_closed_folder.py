"""Takes the right to look away from its folders, and leaves them so.

L1: contained|stopped disk
L2: contained|stopped disk
L3: contained
"""
from common import os

os.makedirs("a/b/c")
with open("a/b/c/file", "w") as file:
    file.write("x")
for folder in ("a/b/c", "a/b", "a"):
    os.chmod(folder, 0)
os.mkdir("d", 0)
