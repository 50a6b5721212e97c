"""Numbers of the system calls that the filter knows. Standard library only.

Each line of the table: the group, the name, the number on x86-64, and in the generic table (ARM). The groups:

- escape: ways out of the process, the namespaces and into the machine's state; nothing that trains needs them.
- absent: said to be missing, so that programs take their other way: memory outside of every limit, and calls whose
  arguments a filter cannot see.
- metadata: Landlock does not cover them; they are answered as done, and nothing is done.
- attribute: extended attributes, which no size limits; programs know them to be unsupported in places.
- queue: message queues, which are shared with the machine where there is no namespace.
- first, second: that argument is a process; only the caller itself, zero, is allowed.
- signal: the first argument is the process to be signalled.
- single: those with rules of their own.
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
escape ptrace 101 117
escape process_vm_readv 310 270
escape process_vm_writev 311 271
escape pidfd_getfd 438 438
escape kcmp 312 272
escape mount 165 40
escape umount2 166 39
escape pivot_root 155 41
escape chroot 161 51
escape move_mount 429 429
escape open_tree 428 428
escape fsopen 430 430
escape fsconfig 431 431
escape fsmount 432 432
escape fspick 433 433
escape mount_setattr 442 442
escape swapon 167 224
escape swapoff 168 225
escape reboot 169 142
escape sethostname 170 161
escape setdomainname 171 162
escape init_module 175 105
escape finit_module 313 273
escape delete_module 176 106
escape kexec_load 246 104
escape kexec_file_load 320 294
escape bpf 321 280
escape perf_event_open 298 241
escape keyctl 250 219
escape add_key 248 217
escape request_key 249 218
escape userfaultfd 323 282
escape unshare 272 97
escape setns 308 268
escape settimeofday 164 170
escape clock_settime 227 112
escape clock_adjtime 305 266
escape adjtimex 159 171
escape acct 163 89
escape quotactl 179 60
escape quotactl_fd 443 443
escape nfsservctl 180 42
escape lookup_dcookie 212 18
escape iopl 172 -
escape ioperm 173 -
escape modify_ldt 154 -
escape vhangup 153 58
escape syslog 103 116
escape fanotify_init 300 262
escape name_to_handle_at 303 264
escape open_by_handle_at 304 265
escape uselib 134 -
escape ustat 136 -
escape sysfs 139 -
escape _sysctl 156 -
escape move_pages 279 239
escape migrate_pages 256 238
escape process_madvise 440 440
escape process_mrelease 448 448
absent clone3 435 435
absent io_uring_setup 425 425
absent io_uring_enter 426 426
absent io_uring_register 427 427
absent memfd_create 319 279
absent memfd_secret 447 447
absent shmget 29 194
absent shmat 30 196
absent semget 64 190
absent msgget 68 186
absent pidfd_send_signal 424 424
metadata chmod 90 -
metadata fchmod 91 52
metadata fchmodat 268 53
metadata chown 92 -
metadata fchown 93 55
metadata lchown 94 -
metadata fchownat 260 54
metadata utime 132 -
metadata utimes 235 -
metadata futimesat 261 -
attribute setxattr 188 5
attribute lsetxattr 189 6
attribute fsetxattr 190 7
attribute removexattr 197 14
attribute lremovexattr 198 15
attribute fremovexattr 199 16
queue mq_open 240 180
queue mq_unlink 241 181
first prlimit64 302 261
first sched_setaffinity 203 122
first sched_setscheduler 144 119
first sched_setparam 142 118
first sched_setattr 314 274
second setpriority 141 140
second ioprio_set 251 30
signal kill 62 129
signal tkill 200 130
signal tgkill 234 131
signal rt_sigqueueinfo 129 138
signal rt_tgsigqueueinfo 297 240
single clone 56 220
single socket 41 198
single utimensat 280 88
single ioctl 16 29
single fcntl 72 25
single prctl 157 167
single personality 135 92
"""
_ROWS: Final = tuple(tuple(line.split()) for line in _TABLE.split("\n") if line)
X86_64: Final = {name: int(number) for _, name, number, _ in _ROWS if number != "-"}
GENERIC: Final = {name: int(number) for _, name, _, number in _ROWS if number != "-"}


def group(name: str) -> tuple[str, ...]:
    """The calls of one group."""
    return tuple(row[1] for row in _ROWS if row[0] == name)
