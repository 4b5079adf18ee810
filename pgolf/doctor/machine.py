"""What this machine is: facts that decide what can run on it, without any name or path of it."""

import ctypes
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LANDLOCK_CREATE_RULESET, LANDLOCK_VERSION = 444, 1  # Source: Linux, Documentation/userspace-api/landlock.rst
GIGABYTE = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """name: as the driver says it.  memory_bytes: in all.  capability: of computing, like (9, 0) for Hopper."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """cores: that this process may use.  memory_bytes: of the machine, or of its control group where that is less.

    disk_bytes: free in the folder asked about.  cuda_build: of torch, "" for a CPU build; torch is "" where it cannot
    be imported, and torch_error says why.  driver: of the GPUs, "" when unknown.
    landlock: version of the kernel's interface, 0 without.  seccomp: whether the kernel filters system calls.
    user_namespaces: how many the kernel allows, None when it does not say; nothing here needs them.
    """

    system: str
    architecture: str
    python: str
    cores: int
    processor: str
    memory_bytes: int | None
    disk_bytes: int
    torch: str
    torch_error: str
    cuda_build: str
    gpus: tuple[Gpu, ...]
    landlock: int
    seccomp: bool
    user_namespaces: int | None
    root: bool

    @classmethod
    def here(cls, folder: Path) -> "Machine":
        """This machine; imports torch.  folder: whose file system is asked for room."""
        version, error, cuda, gpus = _torch()
        return cls(
            system=f"{platform.system()} {platform.release().partition('-')[0]}",
            architecture=platform.machine(),
            python=platform.python_version(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            processor=_processor(),
            memory_bytes=_memory(),
            disk_bytes=shutil.disk_usage(_existing(folder)).free,
            torch=version,
            torch_error=error,
            cuda_build=cuda,
            gpus=gpus,
            landlock=_landlock(),
            seccomp=Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
            user_namespaces=_number(Path("/proc/sys/user/max_user_namespaces")),
            root=hasattr(os, "geteuid") and os.geteuid() == 0,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values by field name."""
        return asdict(self)


def _torch() -> tuple[str, str, str, tuple[Gpu, ...]]:
    """(version, why it cannot be imported, CUDA it was built for, GPUs)"""
    try:
        import torch
    except (ImportError, OSError) as error:
        return "", str(error).splitlines()[0], "", ()
    gpus = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(number)
        gpus.append(Gpu(name=about.name, memory_bytes=about.total_memory, capability=(about.major, about.minor)))
    return torch.__version__, "", torch.version.cuda or "", tuple(gpus)


def _processor() -> str:
    """The model's name; of several processors the first."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> int | None:
    limits = [
        _number(Path(path)) for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    ]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min((limit for limit in limits if limit), default=None)


def _number(path: Path) -> int | None:
    """What a file of the kernel's says, None for a word or no file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def _landlock() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return max(int(libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_VERSION)), 0)
