"""What the toolkit needs and what it can use: each with what is lost without it, and how to get it."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from pgolf.doctor.machine import GIGABYTE, Machine

Look = Callable[[Machine], str | None]  # -> what is there, None when it is missing

OLDEST_PYTHON = (3, 11)
DISK, MEMORY = 2 * GIGABYTE, 4 * GIGABYTE  # the demo's folder has 30 MB, torch alone more than 1 GB; both are round
SANDBOX = "what `pgolf verify` runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """One thing.  essential: without it the core does not work.  without: what is off.  how: to get it."""

    name: str
    look: Look
    without: str
    how: str
    essential: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A need, and what of it is there: None for nothing."""

    need: Need
    what: str | None

    @property
    def state(self) -> str:
        """ "ok", "lacks" for what switches a feature off, "LACKS" for what the core needs."""
        if self.what is not None:
            return "ok"
        return "LACKS" if self.need.essential else "lacks"


def look_around(machine: Machine) -> tuple[Found, ...]:
    """Every need, in the order of the table."""
    return tuple(Found(need=need, what=need.look(machine)) for need in NEEDS)


def lacks_essentials(found: Sequence[Found]) -> list[str]:
    """Names of what the core needs and does not have."""
    return [each.need.name for each in found if each.state == "LACKS"]


def package(module: str, name: str, at_least: str = "0") -> Look:
    """Whether a module can be found and its package is new enough; nothing is imported."""

    def look(machine: Machine) -> str | None:
        try:
            found = version(name) if find_spec(module) else None
        except (PackageNotFoundError, ValueError):
            return None
        return found if found and _numbers(found) >= _numbers(at_least) else None

    return look


def _numbers(text: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cpu", (2, 8, 3) of "2.8.3.post2"."""
    parts: list[int] = []
    for part in text.partition("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def _python(machine: Machine) -> str | None:
    return machine.python if sys.version_info >= OLDEST_PYTHON else None


def _torch(machine: Machine) -> str | None:
    return machine.torch or None


def _gpu(machine: Machine) -> str | None:
    names = [gpu.name for gpu in machine.gpus]
    return f"{len(names)} x {names[0]}, CUDA {machine.cuda_build}" if names else None


def _hopper(machine: Machine) -> str | None:
    """The package of FlashAttention 3 states no version that one could ask for."""
    return "there" if find_spec("flash_attn_interface") else None


def _compiler(machine: Machine) -> str | None:
    return next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def _files(machine: Machine) -> str | None:
    return f"Landlock, version {machine.landlock}" if machine.landlock else None


def _calls(machine: Machine) -> str | None:
    known = machine.architecture in ("x86_64", "aarch64")
    return f"seccomp, table for {machine.architecture}" if machine.seccomp and known else None


def _threads(machine: Machine) -> str | None:
    return None if machine.root else "not root"


def _memory(machine: Machine) -> str | None:
    size = machine.memory_bytes
    return None if size is None or size < MEMORY else f"{size / GIGABYTE:.0f} GB"


def _disk(machine: Machine) -> str | None:
    return f"{machine.disk_bytes / GIGABYTE:.0f} GB free" if machine.disk_bytes >= DISK else None


def _core(module: str, name: str, at_least: str) -> Need:
    without, how = "nothing works", f"pip install '{name}>={at_least}'"
    return Need(name=name, look=package(module, name, at_least), without=without, how=how, essential=True)


def _extra(module: str, name: str, without: str, how: str = "", at_least: str = "0") -> Need:
    return Need(name=name, look=package(module, name, at_least), without=without, how=how or f"pip install {name}")


NEEDS = (
    Need(name="Python", look=_python, without="nothing works", how="install Python 3.11 or later", essential=True),
    _core("click", "click", "8.1"),
    _core("constriction", "constriction", "0.4"),
    _core("numpy", "numpy", "1.26"),
    _core("python_minifier", "python-minifier", "3.4.0"),
    _core("safetensors", "safetensors", "0.4.5"),
    _core("sentencepiece", "sentencepiece", "0.2.0"),
    _core("tabulate", "tabulate", "0.9"),
    Need(
        name="torch", look=_torch, without="nothing but the codec works", how="pip install 'torch>=2.5'", essential=True
    ),
    _core("zstandard", "zstandard", "0.22"),
    Need(
        name="memory",
        look=_memory,
        without="models of the challenge's size may not fit",
        how="a machine with 4 GB or more",
    ),
    Need(name="disk", look=_disk, without="runs may find no room", how="make 2 GB free"),
    Need(
        name="C++ compiler",
        look=_compiler,
        without="`--compile` on a CPU; training there is 1.3 times slower",
        how="apt-get install g++",
    ),
    Need(
        name="NVIDIA GPU",
        look=_gpu,
        without="training of the H100 presets, `--device cuda`, `pgolf doctor --gpu` but for its dry run",
        how="a machine with a card, and torch built for CUDA; examples/launch rents one",
    ),
    _extra("triton", "triton", "`--compile` on a GPU", "comes with torch built for CUDA"),
    _extra("flash_attn", "flash-attn", "FlashAttention 2; torch's own attention runs instead", at_least="2.6"),
    Need(
        name="flash_attn_interface",
        look=_hopper,
        without="FlashAttention 3 on Hopper cards; version 2 or torch's own runs instead",
        how="build it from the hopper folder of the FlashAttention repository; it is in no index",
    ),
    Need(
        name="Landlock",
        look=_files,
        without=f"limits on the files that {SANDBOX} may open; a finding says so",
        how="Linux 5.13 or later with Landlock switched on; 6.2 limits truncation too",
    ),
    Need(
        name="seccomp",
        look=_calls,
        without=f"limits on network, programs and signals of {SANDBOX}; a finding says so",
        how="Linux on x86-64 or ARM64",
    ),
    Need(
        name="user other than root",
        look=_threads,
        without=f"a limit on the number of threads of {SANDBOX}; a finding says so",
        how="run `pgolf verify` as another user",
    ),
    _extra("brotli", "brotli", "recipes and `.ptz` files of brotli; peers in `pgolf measure`", at_least="1.0"),
    _extra("matplotlib", "matplotlib", "`--plot` of `pgolf measure`", at_least="3.8"),
    _extra("nncodec", "nncodec", "a row of benchmarks/bench_codec.py", at_least="2.1"),
    _extra("zpaq", "zpaq", "a row of benchmarks/bench_codec.py", at_least="0.3"),
    _extra("tensorboard", "tensorboard", "`--tracker tensorboard`"),
    _extra("wandb", "wandb", "`--tracker wandb`"),
    _extra("trackio", "trackio", "`--tracker trackio`"),
)
