"""Which system calls a confined process may make, as a program for the kernel's filter (seccomp).

The tables name calls with their numbers on x86-64 and ARM64, - where there is none.  Everything else is allowed, up to
the newest call the tables were checked against.
"""

import errno
import os
import re
from collections.abc import Iterator, Sequence

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit code, column of the tables
NEWEST = 462  # mseal, the last number the tables below were checked against; later ones answer "not implemented"
CLONE_THREAD = 0x10000
DENIED = """
network: socket 41 198  bind 49 200  connect 42 203  listen 50 201  accept 43 202  accept4 288 242
descriptors in flight, which nobody counts: sendmsg 46 211  sendmmsg 307 269
programs: fork 57 -  vfork 58 -  execve 59 221  execveat 322 281
other processes: ptrace 101 117  process_vm_readv 310 270  process_vm_writev 311 271  tkill 200 130  kcmp 312 272
    pidfd_open 434 434  pidfd_getfd 438 438  pidfd_send_signal 424 424  process_madvise 440 440
    process_mrelease 448 448  move_pages 279 239  migrate_pages 256 238  get_robust_list 274 100
what others see of this one: setpriority 141 140  ioprio_set 251 30  sched_setscheduler 144 119
    sched_setparam 142 118  sched_setattr 314 274  setpgid 109 154  setsid 112 157
memory that no limit counts: memfd_create 319 279  memfd_secret 447 447  splice 275 76  tee 276 77  vmsplice 278 75
    shmget 29 194  shmat 30 196  shmctl 31 195  semget 64 190  semop 65 193  semtimedop 220 192  semctl 66 191
    msgget 68 186  msgsnd 69 189  msgrcv 70 188  msgctl 71 187  mq_open 240 180  mq_unlink 241 181
locks and watches of files that others read too: flock 73 32  inotify_init 253 -  inotify_init1 294 26
    inotify_add_watch 254 27  fanotify_init 300 262  fanotify_mark 301 263
the page cache: mincore 27 232  cachestat 451 451  fadvise64 221 223  readahead 187 213  preadv2 327 286
    pwritev2 328 287  sync 162 81  syncfs 306 267
ways around the filter: io_uring_setup 425 425  io_uring_enter 426 426  io_uring_register 427 427
    unshare 272 97  setns 308 268  bpf 321 280  perf_event_open 298 241  userfaultfd 323 282  personality 135 92
    keyctl 250 219  add_key 248 217  request_key 249 218  name_to_handle_at 303 264  open_by_handle_at 304 265
attributes of files: chmod 90 -  fchmod 91 52  fchmodat 268 53  fchmodat2 452 452
    chown 92 -  fchown 93 55  lchown 94 -  fchownat 260 54  utime 132 -  utimes 235 -  futimesat 261 -
    utimensat 280 88  setxattr 188 5  lsetxattr 189 6  fsetxattr 190 7
    removexattr 197 14  lremovexattr 198 15  fremovexattr 199 16
the machine: mount 165 40  umount2 166 39  pivot_root 155 41  chroot 161 51  swapon 167 224  swapoff 168 225
    reboot 169 142  sethostname 170 161  setdomainname 171 162  acct 163 89  quotactl 179 60  quotactl_fd 443 443
    init_module 175 105  delete_module 176 106  finit_module 313 273  kexec_load 246 104  kexec_file_load 320 294
    syslog 103 116  iopl 172 -  ioperm 173 -  vhangup 153 58  clock_settime 227 112  settimeofday 164 170
    adjtimex 159 171  clock_adjtime 305 266  open_tree 428 428  move_mount 429 429  fsopen 430 430  fsconfig 431 431
    fsmount 432 432  fspick 433 433  mount_setattr 442 442
"""
# Libraries live without these when they are told that the kernel lacks them.  clone3 has its flags, and openat2 its
# mode, where a filter cannot look; C libraries fall back to clone and openat.
NOT_IMPLEMENTED = "clone3 435 435  openat2 437 437"
NOT_SUPPORTED = """
attributes that nobody counts: getxattr 191 8  lgetxattr 192 9  fgetxattr 193 10
    listxattr 194 11  llistxattr 195 12  flistxattr 196 13
"""
# How busy the machine is, and where this process runs; the drivers of a GPU ask as well, so not with CUDA.
LOAD_OF_THE_MACHINE = "sysinfo 99 179"
PLACES = "sched_setaffinity 203 122"
CLONE = (56, 220)
# The first argument names a process: this one, and where it may be 0, that means this one too.
ONLY_ITSELF = "kill 62 129  tgkill 234 131  rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240"
ONLY_ITSELF_OR_ZERO = "prlimit64 302 261  sched_getaffinity 204 123"
FCNTL, IOCTL, PRCTL, SOCKETPAIR, GETPRIORITY = (72, 25), (16, 29), (157, 167), (53, 199), (140, 141)
# Of a descriptor: copy it, its flags, a pipe's size.  No locks, leases, watches, owners and no larger pipes.
FCNTL_ALLOWED = (0, 1, 2, 3, 4, 1030, 1032, 1034)
# Is it a terminal, how large is one, bytes that wait, close on exec, do not block.
IOCTL_ALLOWED = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5450, 0x5451, 0x5421)
# The drivers of a GPU have ioctls that nobody lists.  FIOSETOWN, SIOCSPGRP, TIOCSTI, flags of files, FICLONE.
IOCTL_DENIED = (0x8901, 0x8902, 0x5412, 0x40086602, 0x401C5820, 0x40049409, 0x4020940D)
# Name of a thread, of memory, capabilities, seccomp, no_new_privs, large pages; no signal at the parent's death,
# which is set, and nothing that lets others look in.
PRCTL_ALLOWED = (2, 3, 15, 16, 21, 22, 23, 30, 38, 39, 40, 41, 42, 50, 51, 52, 53, 55, 56, 63, 64, 0x53564D41)
OPENING = (((2, -1), 24), ((257, 56), 32))  # open and openat, and where their flags stand
TMPFILE = 0x400000  # O_TMPFILE without O_DIRECTORY: files without a name, which the watch on the disk cannot see
UNIX, STREAM, TYPE = 1, 1, 0xF
ALLOW, KILL_PROCESS, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS, EOPNOTSUPP = ERROR | errno.EPERM, ERROR | errno.ENOSYS, ERROR | errno.EOPNOTSUPP
Line = tuple[int, int, int, int]  # classic BPF: operation, lines to skip if true, if false, constant
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN, AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54


def program(machine: str, *, cuda: bool = False) -> list[Line]:
    """The filter for a machine, one of ARCHITECTURES, and this process.  cuda: let the driver of a GPU work."""
    audit, column = ARCHITECTURES[machine]
    return list(_filter(audit, column, cuda))


def _filter(audit: int, column: int, cuda: bool) -> Iterator[Line]:
    yield from [(LOAD, 0, 0, 4), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, 0)]
    yield from [(AT_LEAST, 0, 1, NEWEST + 1), (RETURN, 0, 0, ENOSYS)]  # the x32 calls of x86-64 are above, too
    answers = [(DENIED, EPERM), (NOT_IMPLEMENTED, ENOSYS), (NOT_SUPPORTED, EOPNOTSUPP)]
    answers += [] if cuda else [(LOAD_OF_THE_MACHINE, ENOSYS), (PLACES, EPERM)]
    for table, answer in answers:
        for number in _numbers(table, column):
            yield from [(EQUAL, 0, 1, number), (RETURN, 0, 0, answer)]
    yield from [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, CLONE_THREAD)]
    yield from [(RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    for numbers, place in OPENING:
        if numbers[column] >= 0:
            yield from [(EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, place), (ANY_BIT, 0, 1, TMPFILE)]
            yield from [(RETURN, 0, 0, EOPNOTSUPP), (RETURN, 0, 0, ALLOW)]
    yield from [(EQUAL, 0, 7, SOCKETPAIR[column]), (LOAD, 0, 0, 16), (EQUAL, 0, 4, UNIX)]
    yield from [
        (LOAD, 0, 0, 24),
        (AND, 0, 0, TYPE),
        (EQUAL, 0, 1, STREAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]
    own = os.getpid()
    for table, processes in ((ONLY_ITSELF, [own]), (ONLY_ITSELF_OR_ZERO, [own, 0])):
        for number in _numbers(table, column):
            yield from _decide(number, 16, processes, ALLOW, EPERM)
    yield from _decide(GETPRIORITY[column], 24, [own, 0], ALLOW, EPERM)
    if cuda:
        yield from _decide(IOCTL[column], 24, IOCTL_DENIED, EPERM, ALLOW)
    else:
        yield from _decide(IOCTL[column], 24, IOCTL_ALLOWED, ALLOW, EPERM)
    yield from _decide(FCNTL[column], 24, FCNTL_ALLOWED, ALLOW, EPERM)
    yield from _decide(PRCTL[column], 16, PRCTL_ALLOWED, ALLOW, EPERM)
    yield RETURN, 0, 0, ALLOW


def _numbers(table: str, column: int) -> list[int]:
    rows = re.findall(r"\w+ (\d+|-) (\d+|-)", table)
    return [int(row[column]) for row in rows if row[column] != "-"]


def _decide(number: int, offset: int, values: Sequence[int], found: int, other: int) -> Iterator[Line]:
    """For one system call: answer `found` if the low half of an argument is one of the values, else `other`."""
    yield from [(EQUAL, 0, len(values) + 3, number), (LOAD, 0, 0, offset)]
    for after, value in zip(reversed(range(len(values))), values, strict=True):
        yield EQUAL, after + 1, 0, value
    yield from [(RETURN, 0, 0, other), (RETURN, 0, 0, found)]
