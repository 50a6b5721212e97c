"""Becomes user 0 and looks whether that gives powers.

L1: reached|contained
L2: contained
L3: contained
"""
from common import os, reached

try:
    os.setresuid(0, 0, 0)
except OSError:
    pass
pid = os.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "grep -q 'CapEff:.*[1-9a-f]' /proc/$$/status || grep -q 'CapEff:.*[1-9a-f]' /proc/self/status"])
if os.waitpid(pid, 0)[1] == 0:
    reached("has powers")
