"""Uses more processor time than it has, in processes of which each stays below the limit.

L1: stopped cpu
L2: stopped cpu
L3: stopped cpu
"""
from common import os

os.fork()
os.fork()
while True:
    pass
