"""Writes a ledger, a report and log lines of its own into the run directory.

L1: reached
L2: contained
L3: contained
"""
from common import os, reached

run = os.path.dirname(os.environ["HOME"])
for name, mode in (("ledger.jsonl", "w"), ("run.json", "w"), ("output.log", "a"), ("channel.jsonl", "a")):
    try:
        with open(os.path.join(run, name), mode) as file:
            file.write("{}")
        reached(f"wrote {name}")
    except OSError:
        pass
