"""What a result depends on: processor, Python and package versions; and the peak memory of this process."""

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # the last two multiply bfloat16 without emulation


def describe(packages: Iterable[str]) -> dict[str, Any]:
    """Plain JSON without paths or names of the machine."""
    info = {"model name": platform.processor(), "flags": ""}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        info |= {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = [name for name in INSTRUCTIONS if name in info["flags"].split()]
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    python = platform.python_version()
    return {"cpu": info["model name"], "instructions": present, "python": python, "versions": versions}


def high_water() -> int | None:
    """Peak bytes of this process so far; None where the kernel keeps no such mark (not Linux).

    VmHWM and not resource.ru_maxrss, which in a child starts at what its parent held.
    """
    status = Path("/proc/self/status")
    return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0]) if status.exists() else None
