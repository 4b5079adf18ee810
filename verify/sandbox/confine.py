"""What a process does to itself before it runs foreign code: it gives up everything that loading a model does not need.

    python -I sandbox.py LIMITS ROOT      confine, then serve as verify.sandbox.worker

Only the standard library is imported before the limits are in force: numpy and torch start threads, and on Linux a
process confines the thread that asks and those that it starts afterwards.

What is taken away, with kernel features that need no privileges:
- Landlock: reading outside the Python installation, shared libraries and the scratch folder; writing, making and
  removing files outside the scratch folder; device control; signals to other processes.
- seccomp: sockets, new processes and programs, io_uring, other processes' memory, signals and limits, shared memory
  that no limit counts, owners, modes and times of files, namespaces, and system calls newer than the filter.
- limits: address space (with CUDA: writable memory), size of a file, open files, threads (not root's), no core dump.
- capabilities: all, so that root is no exception.  No descriptor but the standard three is passed on.
The parent ends the process at the wall-clock limit and when the scratch folder grows too large (scratch.py).

What it does not protect against:
- flaws of the kernel, of a GPU driver (with CUDA its device files stay open to the process) and of the processor;
- a wrong answer: the process may compute its logits in any way it likes, also by reading ahead in the tokens it is
  given.  That is what the audit is for;
- use of processor time and of memory up to the limits, and of disk up to the scratch limit for the second until the
  parent looks; files that were removed while open are not seen;
- reading what lies in the folders it may read, and whether any path exists, its size and times;
- anything on other systems than Linux on x86-64 and ARM64: there, and on older kernels, `confine` says what is missing.
"""

import ctypes
import errno
import json
import os
import platform
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec

GIGABYTE = 1_000_000_000
THREADS = "number of threads (the kernel sets root no limit; run verify as another user)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """scratch: the folder the process may write to.  readable: more it may read.  All sizes in bytes.

    scratch_bytes: together in the scratch folder, seen to by the parent.  cuda: leave the GPU's device files open.
    """

    scratch: str
    readable: tuple[str, ...] = ()
    memory_bytes: int = 16 * GIGABYTE
    file_bytes: int = GIGABYTE // 4
    scratch_bytes: int = GIGABYTE
    cuda: bool = False

    def to_json(self) -> str:
        """For the command line of the process."""
        return json.dumps(asdict(self))


def confine(limits: Limits) -> list[str]:
    """Confine this process for good; call it before any second thread exists.  Returns what could not be enforced.

    Source: Linux, Documentation/userspace-api/landlock.rst and seccomp_filter.rst; the table of system calls is the
    kernel's own.
    """
    missing = _limit_resources(limits)
    if not sys.platform.startswith("linux"):
        return [*missing, f"network, files, processes and signals ({sys.platform} has neither Landlock nor seccomp)"]
    if len(os.listdir("/proc/self/task")) != 1:
        missing.append("threads that were running before (confine came too late)")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(ctypes.c_int(PR_SET_PDEATHSIG), ctypes.c_ulong(9), 0, 0, 0)
    if libc.prctl(ctypes.c_int(PR_SET_NO_NEW_PRIVS), ctypes.c_ulong(1), 0, 0, 0):
        return [*missing, "network, files, processes and signals (no_new_privs was refused)"]
    for step in (_landlock, _drop_capabilities, _seccomp):  # seccomp last: it forbids what the others use
        missing += step(libc, limits)
    return missing


def _limit_resources(limits: Limits) -> list[str]:
    import resource

    # CUDA reserves far more addresses than it uses; without it the address space is the limit nothing gets around.
    memory = resource.RLIMIT_DATA if limits.cuda else resource.RLIMIT_AS
    wanted = {
        memory: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: 512,
        resource.RLIMIT_NPROC: 4096,  # threads of the user in all: high, as those of other programs count too
        resource.RLIMIT_CORE: 0,
    }
    missing = []
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (value, value))
        except (OSError, ValueError):
            if which == memory:
                missing.append(f"memory ({sys.platform} refused the limit)")
    if os.getuid() == 0:  # measured: 5,999 threads at a limit of 4,096
        missing.append(THREADS)
    return missing


# --- Landlock ---------------------------------------------------------------------------------------------------------

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # those that make sense for a single file
FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # rights that each version of Landlock knows; 16 from version 5 on
LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
MACHINE = (
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/sys/devices/system"),
    *("/dev/zero", "/dev/random", "/dev/urandom"),
)
GPU = ("/proc", "/sys", "/usr/local/cuda", "/usr/local/nvidia", "/usr/share/nvidia", "/etc/alternatives")


def _landlock(libc: ctypes.CDLL, limits: Limits) -> list[str]:
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return ["files (the kernel has no Landlock)"]
    handled = (1 << FS_BITS.get(version, 16)) - 1
    attributes = struct.pack("QQQ", handled, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    everything = handled & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
    granted = [(path, READ_FILE | READ_DIR) for path in _readable(limits)]
    granted += [(limits.scratch, everything), ("/dev/null", READ_FILE | WRITE_FILE)]
    if limits.cuda:
        devices = [entry.path for entry in os.scandir("/dev") if entry.name.startswith("nvidia")]
        granted += [(path, READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV) for path in devices]
    for path, rights in granted:
        _allow(libc, ruleset, path, rights & handled)
    if ruleset < 0 or libc.syscall(RESTRICT_SELF, ruleset, 0):
        return [f"files (Landlock was refused: {os.strerror(ctypes.get_errno())})"]
    os.close(ruleset)
    return ["truncation of files outside the scratch folder (Landlock before Linux 6.2)"] if version < 3 else []


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Grant rights below a path; one that is not there needs none."""
    with suppress(OSError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights &= -1 if os.path.isdir(path) else FILE_RIGHTS
        libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, handle), 0)
        os.close(handle)


def _readable(limits: Limits) -> list[str]:
    """Python, its packages and the libraries they load; not whole prefixes, which may be /usr."""
    python = [f"{prefix}/{lib}" for prefix in {sys.prefix, sys.base_prefix} for lib in ("lib", "lib64", "pyvenv.cfg")]
    loader = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    more = GPU if limits.cuda else ()
    return [*python, *sys.path, *loader, *LIBRARIES, *MACHINE, *limits.readable, *more]


def _drop_capabilities(libc: ctypes.CDLL, limits: Limits) -> list[str]:
    """Version 3 of capset: nothing effective, permitted or inheritable."""
    number = {"x86_64": 126, "aarch64": 91}.get(platform.machine())
    if number is None or libc.syscall(number, struct.pack("Ii", 0x20080522, 0), bytes(24)):
        return ["privileges of root (capabilities were not dropped)"] if os.geteuid() == 0 else []
    return []


# --- seccomp ----------------------------------------------------------------------------------------------------------

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit code, column of the tables
NEWEST = 462  # mseal, the last number the tables below were checked against; later ones answer "not implemented"
CLONE_THREAD = 0x10000
# system call, its number on x86-64, on ARM64; - where there is none
DENIED = """
network: socket 41 198
programs: fork 57 -  vfork 58 -  execve 59 221  execveat 322 281
other processes: ptrace 101 117  process_vm_readv 310 270  process_vm_writev 311 271  tkill 200 130  kcmp 312 272
    pidfd_open 434 434  pidfd_getfd 438 438  pidfd_send_signal 424 424  process_madvise 440 440
    process_mrelease 448 448  move_pages 279 239  migrate_pages 256 238  setpriority 141 140  ioprio_set 251 30
    sched_setscheduler 144 119  sched_setparam 142 118  sched_setattr 314 274
memory that no limit counts: memfd_create 319 279  memfd_secret 447 447  shmget 29 194  shmat 30 196
    msgget 68 186  semget 64 190  mq_open 240 180
ways around the filter: io_uring_setup 425 425  io_uring_enter 426 426  io_uring_register 427 427
    unshare 272 97  setns 308 268  bpf 321 280  perf_event_open 298 241  userfaultfd 323 282
    keyctl 250 219  add_key 248 217  request_key 249 218  open_by_handle_at 304 265
attributes of files: chmod 90 -  fchmod 91 52  fchmodat 268 53  fchmodat2 452 452
    chown 92 -  fchown 93 55  lchown 94 -  fchownat 260 54  utime 132 -  utimes 235 -  futimesat 261 -
    utimensat 280 88  setxattr 188 5  lsetxattr 189 6  fsetxattr 190 7
    removexattr 197 14  lremovexattr 198 15  fremovexattr 199 16
"""
CLONE, CLONE3 = (56, 220), (435, 435)
# The first argument names a process: this one, and where it may be 0, that means this one too.
ONLY_ITSELF = "kill 62 129  tgkill 234 131  rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240"
ONLY_ITSELF_OR_ZERO = "prlimit64 302 261  sched_setaffinity 203 122"
SECOND_ARGUMENT = {  # what may not stand there: descriptors that send signals to others, input to a terminal
    (72, 25): (8, 10, 15),  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX
    (16, 29): (0x8901, 0x8902, 0x5412),  # ioctl: FIOSETOWN, SIOCSPGRP, TIOCSTI
}
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
Line = tuple[int, int, int, int]  # classic BPF: operation, lines to skip if true, if false, constant
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def _seccomp(libc: ctypes.CDLL, limits: Limits) -> list[str]:
    if platform.machine() not in ARCHITECTURES or sys.byteorder != "little":
        return [f"network, processes and signals (no table of system calls for {platform.machine()})"]
    code = b"".join(struct.pack("HBBI", *line) for line in _filter(*ARCHITECTURES[platform.machine()]))
    lines = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(lines))
    if libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(2), program, 0, 0):
        return [f"network, processes and signals (seccomp was refused: {os.strerror(ctypes.get_errno())})"]
    return []


def _filter(audit: int, column: int) -> Iterator[Line]:
    yield from [(LOAD, 0, 0, 4), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, 0)]
    yield from [(AT_LEAST, 0, 1, NEWEST + 1), (RETURN, 0, 0, ENOSYS)]  # the x32 calls of x86-64 are above, too
    for number in _numbers(DENIED, column):
        yield from [(EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM)]
    # C libraries fall back from clone3, whose flags lie where a filter cannot look, to clone.
    yield from [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, ENOSYS)]
    yield from [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, CLONE_THREAD)]
    yield from [(RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    for table, processes in ((ONLY_ITSELF, [os.getpid()]), (ONLY_ITSELF_OR_ZERO, [os.getpid(), 0])):
        for number in _numbers(table, column):
            yield from _decide(number, 16, processes, ALLOW, EPERM)
    for numbers, values in SECOND_ARGUMENT.items():
        yield from _decide(numbers[column], 24, values, EPERM, ALLOW)
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


def main() -> None:
    """Confine this process and serve; see verify.sandbox.worker."""
    limits, root = Limits(**json.loads(sys.argv[1])), sys.argv[2]
    sys.path.insert(0, root)
    for package in ("codec", "verify"):
        find_spec(package)  # once confined, `root` cannot be listed: the path finder keeps what it saw of it here
    missing = confine(limits)
    from verify.sandbox.worker import serve

    serve(missing)


if __name__ == "__main__":
    main()
