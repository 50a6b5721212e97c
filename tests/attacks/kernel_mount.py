"""Mounts a file system of its own.

L1: reached|contained
L2: contained
L3: contained
"""
from common import libc, os, reached

os.mkdir("mine")
if libc.mount(b"none", b"mine", b"tmpfs", 0, None) == 0:
    reached("mounted")
    libc.umount(b"mine")
