"""What a process does to itself before it runs foreign code: it gives up everything that loading a model does not need.

On Linux a process confines the thread that asks and those that it starts afterwards, so there must be no other yet: it
was just forked (nursery.py).

What is taken away, with kernel features that need no privileges:
- namespaces of its own, where the kernel gives them to anybody: users, network, System V memory, names of the machine.
- Landlock: reading outside Python's library, the packages that are named, shared objects (installation.py) and the
  scratch folder; writing, making and removing files outside the scratch folder; device control; signals to others.
- seccomp (system_calls.py): sockets but for connected pairs, new processes and programs, io_uring, other processes'
  memory, signals and limits, shared memory that no limit counts, files without a name, locks and watches of files,
  owners, modes, times and other attributes of files, ioctls but a few, and system calls newer than the filter.
- limits: address space (with CUDA: writable memory), size of a file, open files, threads (not root's), no core dump.
- capabilities: all, so that root is no exception.  No descriptor but the standard three is passed on.
The parent ends the process at the wall-clock limit and when the files of its scratch folder grow too large, removed
ones that are still open included (scratch.py).

What it does not protect against:
- flaws of the kernel, of a GPU driver (with CUDA its device files stay open to the process) and of the processor;
- a wrong answer: the process may compute its logits in any way it likes, also by reading ahead in the tokens it is
  given.  That is what the audit is for;
- use of processor time and of memory up to the limits, and of disk up to the scratch limit for the second until the
  parent looks;
- reading what lies in the folders it may read, and whether any path exists, its size and times;
- what two processes can tell each other by how busy they keep the machine; docs/threats.md has the list;
- anything on other systems than Linux on x86-64 and ARM64: there, and on older kernels, `confine` says what is missing.
"""

import ctypes
import json
import os
import platform
import struct
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass

from verify.sandbox.installation import listed, readable
from verify.sandbox.system_calls import ARCHITECTURES, program

GIGABYTE = 1_000_000_000
THREADS = "number of threads (the kernel sets root no limit; run verify as another user)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """scratch: the folder the process may write to.  packages: installed ones it may read, beside those that every
    submission may.  All sizes in bytes.

    scratch_bytes: together in the scratch folder, seen to by the parent.  cuda: leave the GPU's device files open.
    """

    scratch: str
    packages: tuple[str, ...] = ()
    memory_bytes: int = 16 * GIGABYTE
    file_bytes: int = GIGABYTE // 4
    scratch_bytes: int = GIGABYTE
    cuda: bool = False

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "Limits":
        """What `to_json` wrote."""
        found = json.loads(text)
        return cls(**found | {"packages": tuple(found["packages"])})


def confine(limits: Limits) -> list[str]:
    """Confine this process for good; call it before any second thread exists.  Returns what could not be enforced.

    Namespaces are not among it: what they take away is refused without them, too.

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
    if not limits.cuda:
        _namespaces(libc)
    libc.prctl(ctypes.c_int(PR_SET_PDEATHSIG), ctypes.c_ulong(9), 0, 0, 0)  # new namespaces would undo it
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
    if hasattr(resource, "RLIMIT_MSGQUEUE"):
        wanted[resource.RLIMIT_MSGQUEUE] = 0
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


# --- namespaces -------------------------------------------------------------------------------------------------------

NEW = 0x10000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000  # users, network, IPC, names, control groups


def _namespaces(libc: ctypes.CDLL) -> None:
    """Have users, network and the like for itself; where that is refused, nothing has changed."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(ctypes.c_int(NEW)):
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), ctypes.c_ulong(1), 0, 0, 0)  # or the parent could not look at its files


# --- Landlock ---------------------------------------------------------------------------------------------------------

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # those that make sense for a single file
FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # rights that each version of Landlock knows; 16 from version 5 on
MACHINE = (
    *("/proc/self", "/proc/cpuinfo", "/proc/sys/vm/overcommit_memory", "/dev/zero", "/dev/random", "/dev/urandom"),
    *(f"/sys/devices/system/cpu/{name}" for name in ("online", "possible", "present")),
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
    granted = [(path, READ_FILE | READ_DIR) for path in granted_paths(limits)]
    granted += [(path, READ_DIR) for path in listed()]
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


def granted_paths(limits: Limits) -> list[str]:
    """What may be read beside the scratch folder: files, and folders with all below them."""
    return [*readable(limits.packages), *MACHINE, *(GPU if limits.cuda else ())]


def _drop_capabilities(libc: ctypes.CDLL, limits: Limits) -> list[str]:
    """Version 3 of capset: nothing effective, permitted or inheritable."""
    number = {"x86_64": 126, "aarch64": 91}.get(platform.machine())
    if number is None or libc.syscall(number, struct.pack("Ii", 0x20080522, 0), bytes(24)):
        return ["privileges of root (capabilities were not dropped)"] if os.geteuid() == 0 else []
    return []


def _seccomp(libc: ctypes.CDLL, limits: Limits) -> list[str]:
    if platform.machine() not in ARCHITECTURES or sys.byteorder != "little":
        return [f"network, processes and signals (no table of system calls for {platform.machine()})"]
    lines = program(platform.machine(), cuda=limits.cuda)
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    held = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(held))
    if libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(2), described, 0, 0):
        return [f"network, processes and signals (seccomp was refused: {os.strerror(ctypes.get_errno())})"]
    return []
