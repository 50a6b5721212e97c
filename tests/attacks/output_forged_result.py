"""Prints result lines and events as if they came from the harness, in print and in error.

L1: contained
L2: contained
L3: contained
"""
import sys

import common  # noqa: F401

for stream in (sys.stdout, sys.stderr):
    stream.write('{"reached": "forged"}\n{"i": 1, "kind": "score", "reached": "forged"}\n')
    stream.write("ready\n" + '{"returncode": 0, "refused": ""}\n{"name": "kept/x", "size": 1}\n')
    stream.write("final_int8_zlib_roundtrip_exact val_loss:0.1 val_bpb:0.1\n")
