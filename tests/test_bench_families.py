"""benchmarks/bench_families.py on weights whose distribution is known."""

import json
import os
import subprocess
import sys

import numpy as np

from codec.storage.checkpoint import write_checkpoint
from tests.conftest import ROOT


def test_the_family_that_made_the_weights_wins(tmp_path):
    random = np.random.default_rng(0)
    spread = np.exp2(random.uniform(-2, 2, (400, 1)))
    for name, noise in (("normal", random.normal(size=(400, 500))), ("laplace", random.laplace(size=(400, 500)))):
        tensors = {"blocks.0.mlp.fc.weight": (spread * noise).astype(np.float32)}
        write_checkpoint(tmp_path / f"{name}.safetensors", tensors, {})
    files = [argument for name in ("normal", "laplace") for argument in ("--weights", tmp_path / f"{name}.safetensors")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_families", *files, "--output", tmp_path / "results.json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    normal, laplace = json.loads((tmp_path / "results.json").read_text())["results"]
    assert normal["levels"] == laplace["levels"] == 200_000
    assert normal["normal"] < 0.99 * normal["laplace"]
    assert laplace["laplace"] < 0.99 * laplace["normal"]
    for row, own in ((normal, "normal"), (laplace, "laplace")):
        # A shape costs a byte; counting and knowing the density come to the same within 1 %.
        assert row["shape per tensor"] <= row[own] + 1
        assert abs(row[own] / row["histograms"] - 1) < 0.01
