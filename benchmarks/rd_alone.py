"""Recipe `best` without a trained model: its trellis on Gaussian weights, and its speed on random ones."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.compared.gaussian_bound import ideal_gap
from benchmarks.compared.schemes import best
from benchmarks.machine import high_water
from codec.decoder import decode
from codec.encoder import encode
from codec.storage.checkpoint import read_checkpoint

Add = Callable[[Mapping[str, Any]], None]
STATES = (1, 4, 8, 16, 32, 64, 128, 256)


def ideal(add: Add) -> None:
    """The trellis alone: independent Gaussian weights, no side information."""
    for states in STATES:
        started = time.perf_counter()
        bits, found = ideal_gap(states, best().rate_weight)
        about = {"subject": "independent Gaussian", "scheme": f"{states} states", "states": states, "restart": 1024}
        gaps = dict.fromkeys(("median_db", "median_with_tables_db", "worst_db", "best_db"), found)
        seconds = time.perf_counter() - started
        add({"kind": "bound", **about, "bits": bits, "tensors": 1, "left_out": 0, **gaps, "seconds": seconds})


def speed(add: Add) -> None:
    """Random weights in the shapes of pull request 1716, without calibration, 2 threads at most."""
    from benchmarks.bench_fit import SPREADS, random_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.safetensors")
        random_checkpoint(path, "pr1716", SPREADS["pr1716"])
        tensors, _ = read_checkpoint(path)
    before, started = high_water(), time.perf_counter()
    treated = dict(best().quantize_all(tensors, None))
    quantized = time.perf_counter()
    blob = encode(treated, {})
    encoded = time.perf_counter()
    packing = high_water()
    decode(blob)
    add(
        {
            "kind": "speed",
            "subject": "random pr1716",
            "weights": sum(array.size for array in tensors.values()),
            "bytes": len(blob),
            "threads": torch.get_num_threads(),
            "quantize_seconds": quantized - started,
            "encode_seconds": encoded - quantized,
            "decode_seconds": time.perf_counter() - encoded,
            "memory_before": before,
            "memory_peak": packing,
        }
    )
