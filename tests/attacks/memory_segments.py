"""Hides memory in System V segments, which outlive their process.

L1: reached
L2: contained
L3: contained
"""
from common import libc, reached

number = libc.shmget(0, 1 << 20, 0o1600)
if number >= 0:
    reached("made a segment")
    libc.shmctl(number, 0, None)
