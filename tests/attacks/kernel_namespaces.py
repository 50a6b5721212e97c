"""Makes namespaces of its own, in which it would be user 0.

L1: reached|contained
L2: contained
L3: contained
"""
from common import call, libc, os, reached

for flags in (0x10000000, 0x10020000, 0x40000000):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(flags) == 0 else 1)
    if os.waitpid(pid, 0)[1] == 0:
        reached("made a namespace")
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
result = call(number, 0x10000000 | 17, 0, 0, 0, 0)
if result == 0:
    os._exit(0)
if result > 0:
    os.waitpid(result, 0)
    reached("made a namespace by clone")
