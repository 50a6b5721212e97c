"""Changes the limits and the priority of a process outside.

L1: reached
L2: contained
L3: contained
"""
from common import bait, os, reached
import resource

pid = int(bait["decoy"])
try:
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    reached("changed its limits")
except OSError:
    pass
try:
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    reached("changed its priority")
except OSError:
    pass
try:
    os.sched_setaffinity(pid, {0})
    reached("changed its processors")
except OSError:
    pass
