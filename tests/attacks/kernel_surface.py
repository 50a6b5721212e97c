"""Tries calls that have been ways into the kernel: BPF, keys, io_uring, userfaultfd, performance events.

L1: reached
L2: contained
L3: contained
"""
from common import call, os, reached

numbers = {
    "x86_64": {"bpf": 321, "keyctl": 250, "io_uring": 425, "userfaultfd": 323, "perf": 298, "fanotify": 300, "kcmp": 312, "ptrace": 101},
    "aarch64": {"bpf": 280, "keyctl": 219, "io_uring": 425, "userfaultfd": 282, "perf": 241, "fanotify": 262, "kcmp": 272, "ptrace": 117},
}[os.uname().machine]
for name, number in numbers.items():
    if call(number, 9999, 0, 0, 0, 0) not in {-1, -38}:
        reached(f"{name} answers")
for number in (452, 453, 600, 0x40000000 | 39):
    if call(number, -1, 0, 0, 0, 0) not in {-1, -38}:
        reached(f"call {number} answers")
