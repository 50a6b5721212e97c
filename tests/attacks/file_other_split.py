"""Evaluation reads the training split, or training the labels: a file that was not among its views.

L1: reached
L2: contained
L3: contained
"""
from common import bait, read

read(bait["labels"])
