"""Peak memory of encoding or decoding, in a process of its own.

python -m benchmarks.processes.memory encode|decode FILE -> bytes on stdout.

FILE: a saved state (`save`) for encode, an artifact for decode.  What the interpreter and the libraries hold before the
file is read is subtracted; the file's content, the arrays and the result are all counted.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.machine import high_water
from codec.decoder import QuantizedTensor, decode
from codec.encoder import encode
from codec.measurement.compressors import Tensors


def peak_memory(action: str, path: Path) -> int | None:
    """Bytes; None where the kernel keeps no high-water mark (not Linux)."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-m", "benchmarks.processes.memory", action, str(path.resolve())]
    return int(subprocess.check_output(command, text=True, cwd=Path(__file__).parents[2]))


def save(path: Path, tensors: Tensors) -> None:
    """As .npz: `q` or `p` (quantized, plain), the position, `.0` levels or array, `.1` scales."""
    arrays = {}
    for position, tensor in enumerate(tensors.values()):
        quantized = isinstance(tensor, QuantizedTensor)
        for part, array in enumerate(tensor if quantized else (tensor,)):
            arrays[f"{'q' if quantized else 'p'}{position}.{part}"] = array
    np.savez(path, **arrays)


def _load(path: Path) -> Tensors:
    with np.load(path) as file:
        return {
            key: QuantizedTensor(file[key], file[key[:-1] + "1"]) if key.startswith("q") else file[key]
            for key in file.files
            if key.endswith(".0")
        }


if __name__ == "__main__":
    before = high_water() or 0
    if sys.argv[1] == "encode":
        encode(_load(Path(sys.argv[2])), {})
    else:
        decode(Path(sys.argv[2]).read_bytes())
    print((high_water() or 0) - before)
