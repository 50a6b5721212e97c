"""Leaves links to files outside where files are brought out from.

L1: contained
L2: contained
L3: contained
"""
from common import bait, os

os.mkdir("kept")
os.symlink(bait["secret"], "kept/model.pt")
os.symlink(os.path.dirname(bait["secret"]), "kept/folder")
os.symlink("/etc", "etc")
