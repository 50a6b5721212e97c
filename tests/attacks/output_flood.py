"""Prints without end.

L1: stopped output
L2: stopped output
L3: stopped output
"""
import common  # noqa: F401

while True:
    print("step:1/1 train_loss:0.0001 " * 40)
