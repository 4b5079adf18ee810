"""benchmarks/bench_trainer.py on a tiny model: its JSON has to add up."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from trainer.presets.catalog import PRESETS


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_trainer", "--quick", "--output", output],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "library step" in done.stdout
    return json.loads(output.read_text())


def test_the_arithmetic_holds(report):
    (result,) = report["results"]
    train, seconds = PRESETS["tiny"].train, result["cpu_seconds"]
    assert (result["step_tokens"], result["sequence"]) == (train.batch_tokens, train.seq_len)
    assert all(value > 0 for value in seconds.values())
    step = seconds["forward_backward"] + seconds["muon"] + seconds["adamw"]
    rates = result["tokens_per_cpu_second"]
    assert rates["step"] == pytest.approx(train.batch_tokens / step)
    assert rates["forward"] == pytest.approx(train.batch_tokens / seconds["forward"])
    assert result["muon_share_of_step"] == pytest.approx(seconds["muon"] / step)
    assert result["ours_to_library_muon"] == pytest.approx(seconds["muon"] / seconds["peer_muon"])


def test_memory_holds_at_least_weights_gradients_and_momenta(report):
    (result,) = report["results"]
    if result["peak_bytes"] is not None:
        assert result["peak_bytes"] > 3 * 4 * result["weights"]


def test_the_machine_is_named_without_its_paths(report):
    assert report["machine"]["cpu"]
    assert "torch" in report["machine"]["versions"]
    assert str(ROOT) not in json.dumps(report)
