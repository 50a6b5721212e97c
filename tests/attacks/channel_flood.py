"""Sends without end through the channel.

L1: stopped output
L2: stopped output
L3: stopped output
"""
from common import os

while True:
    os.write(int(os.environ["PROBE_CHANNEL_FD"]), b'{"kind": "x"}' * 1000)
