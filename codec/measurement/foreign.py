"""Somebody else's artifact, read in a process of its own under limits of memory and processor time.

The format bounds what a file may ask for (docs/format.md, Limits); this bounds what a flaw of ours could cost.
"""

import hashlib
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from codec.decoder import as_floats, unpack
from codec.errors import CodecError
from codec.measurement.byte_ledger import ledger

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 8_000_000_000  # bytes of addresses: 2**28 weights are 1 GB as float32, and decoding takes five times that
SECONDS = 120  # of processor time; what the format lets a file of 16 MB ask for takes 40
DEPTH = 100  # of metadata: what is left of the 1,000 calls of Python differs between who reads and who prints
SENTENCE = 500  # characters of a refusal, which may quote the file
START = "import sys; sys.path.insert(0, sys.argv[1]); from codec.measurement.foreign import answer; answer()"
State = dict[str, dict[str, Any]]


def tensor_state(blob: bytes) -> tuple[dict[str, Any], State]:
    """(metadata; of each decoded tensor its dtype, shape and the sha256 of its bytes), the values left behind.

    Raises: CodecError as `codec.decode`, and at the limits.
    """
    found = _ask("state", blob)
    return found["meta"], found["state"]


def foreign_ledger(blob: bytes) -> dict[str, Any]:
    """`ByteLedger.to_dict` of an artifact.  Raises: as `tensor_state`."""
    return _ask("ledger", blob)


def _ask(what: str, blob: bytes) -> dict[str, Any]:
    command = [sys.executable, "-I", "-B", "-c", START, str(ROOT), what]
    done = subprocess.run(command, input=blob, capture_output=True, env={"OMP_NUM_THREADS": "1"})
    if done.returncode == -signal.SIGXCPU:
        raise CodecError(f"took more than the {SECONDS} seconds of processor time that reading an artifact may take")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CodecError(f"cannot be read: the process that tried ended with {done.returncode} {' '.join(last)}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        raise CodecError(found["error"], hint=found["hint"])
    return found


def answer() -> None:
    """What the process does: an artifact from stdin, JSON to stdout."""
    _limit()
    blob = sys.stdin.buffer.read()
    try:
        found = foreign_facts(blob) if sys.argv[2] == "state" else ledger(blob).to_dict()
    except CodecError as error:
        found = {"error": error.message[:SENTENCE], "hint": error.hint}
    except MemoryError:
        found = {"error": f"needs more than the {MEMORY:,} bytes of memory that reading it may take", "hint": ""}
    sys.stdout.write(json.dumps(found))


def foreign_facts(blob: bytes) -> dict[str, Any]:
    """{meta, state}; a tensor with many names is hashed once."""
    header, tensors = unpack(blob)
    if _depth(header["meta"]) > DEPTH:
        raise CodecError(f"the artifact's metadata nest deeper than {DEPTH} levels")
    seen: dict[int, dict[str, Any]] = {}
    for tensor in tensors.values():  # as floats one by one: levels take a quarter
        if id(tensor) not in seen:
            array = np.asarray(as_floats(tensor), order="C")
            sha256 = hashlib.sha256(array.data).hexdigest()
            seen[id(tensor)] = {"dtype": array.dtype.name, "shape": [*array.shape], "sha256": sha256}
    return {"meta": header["meta"], "state": {name: seen[id(tensor)] for name, tensor in tensors.items()}}


def _depth(value: object) -> int:
    """Of lists and dicts within each other; breadth first, so that it needs no depth itself."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _limit() -> None:
    """Where the system has such limits; the format's own hold everywhere."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
