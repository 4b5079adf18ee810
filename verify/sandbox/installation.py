"""What of the installation a confined process may read: Python's library, the packages that are named, shared objects.

Other installed packages are as good as absent: their code and data are in nobody's count.  The toolkit is none of the
packages; the process runs from a copy of it, which is gone before a submission's script starts.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PackageNotFoundError, distribution

# What every submission may import, with what these need themselves.
PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "zstandard", "brotli")
# Folders beside the standard library that no program needs: other packages, tests with their data, documents, wheels.
LEFT_OUT = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip", "turtledemo", "pydoc_data", "__phello__"}
LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
LOADER = ("/etc/ld.so.cache", "/usr/lib/locale", "/usr/share/zoneinfo/UTC")
SHARED = re.compile(r".*\.so(\.[\w.]+)?$")
ALTERNATIVES = re.compile(r"(lib)?(blas|lapack|openblas|atlas)")
MULTIARCH = re.compile(r"\w+-linux-gnu\w*$")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@cache
def readable(packages: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Files, and folders with all below them.  packages: more names of distributions; what is not installed is not."""
    return (*_standard_library(), *_of_packages([*PACKAGES, *packages]), *_shared_objects(), *LOADER)


def listed() -> tuple[str, ...]:
    """Folders of which the names may be read, so that imports find what is there."""
    packages = (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))
    return (*_standard_folders(), *packages)


def is_granted(spec: ModuleSpec, granted: frozenset[str]) -> bool:
    """Whether the files of a top-level module are among those that may be read, or it has none."""
    places = [spec.origin or "", *(spec.submodule_search_locations or [])]
    files = [place for place in places if os.path.isabs(place)]
    return not files or any(within(place, granted) for place in files)


def within(path: str, granted: frozenset[str]) -> bool:
    """Whether a path, links resolved, is one of the files or lies below one of the folders."""
    place = os.path.realpath(path)
    while place not in granted:
        place, last = os.path.dirname(place), place
        if place == last:
            return False
    return True


def _standard_folders() -> list[str]:
    """Of Python's own modules, and where its compiled ones lie."""
    compiled = (os.path.dirname(path) for path in sys.path if os.path.basename(path) == "lib-dynload")
    return list(dict.fromkeys([os.path.dirname(os.__file__), *compiled]))


def _standard_library() -> Iterator[str]:
    for folder in _standard_folders():
        yield from (entry.path for entry in _entries(folder) if entry.name not in LEFT_OUT)
    yield from (path for path in sys.path if path.endswith(".zip"))
    yield f"{sys.prefix}/pyvenv.cfg"


def _of_packages(names: Iterable[str]) -> list[str]:
    """The top-level files and folders of distributions and, transitively, of those they require."""
    waiting, found = list(names), dict[str, list[str]]()
    while waiting:
        match = NAME.match(waiting.pop())
        name = match[0].lower().replace("_", "-") if match else ""
        if not match or name in found:
            continue
        found[name] = []
        with suppress(PackageNotFoundError, OSError):
            package = distribution(name)
            found[name] = _tops(package, name)
            waiting += [line for line in package.requires or [] if "extra ==" not in line]
    return [path for paths in found.values() for path in paths]


def _tops(package: Distribution, name: str) -> list[str]:
    """The paths beside site-packages' others that an installed distribution consists of."""
    record = package.read_text("RECORD")
    if record:
        tops = {line.partition(",")[0].partition("/")[0] for line in record.splitlines()}
    else:  # of the system's package manager
        tops = set((package.read_text("top_level.txt") or name).split())
        tops |= {f"{top}.py" for top in tops}
    return [str(package.locate_file(top)) for top in sorted(tops - {"", "..", "__pycache__"})]


def _shared_objects() -> Iterator[str]:
    """Shared objects where the loader looks, in its folders for a machine, and in theirs for alternatives."""
    own = {f"{prefix}/{lib}" for prefix in (sys.prefix, sys.base_prefix) for lib in ("lib", "lib64")}
    loader = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    folders = [*LIBRARIES, *own, *loader]
    machines = [entry.path for folder in folders for entry in _entries(folder) if MULTIARCH.match(entry.name)]
    for folder in [*folders, *machines]:
        yield from (entry.path for entry in _entries(folder) if SHARED.match(entry.name))
    for folder in machines:
        yield from (entry.path for entry in _entries(folder) if ALTERNATIVES.match(entry.name))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with suppress(OSError):
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    return []
