"""benchmarks/bench_fit.py: its JSON has to add up; its full-size checkpoints land where the challenge wants them."""

import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks import bench_fit
from codec.storage.checkpoint import write_checkpoint
from tests.conftest import ROOT
from trainer.model.gpt import GPT, GPTConfig

pytestmark = pytest.mark.slow


def test_the_report_adds_up(tmp_path):
    model = GPT(GPTConfig(vocab_size=640, seq_len=32, layers=2, dim=96, heads=2, kv_heads=2, mlp_hidden=192))
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    write_checkpoint(tmp_path / "checkpoint.safetensors", tensors, {"config": model.config.to_dict()})
    arguments = ("--weights", tmp_path / "checkpoint.safetensors", "--caps", 1, "--output", tmp_path / "results.json")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_fit", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert result["total_bytes"] == result["code_bytes"] + result["artifact_bytes"] <= result["cap_bytes"]
    assert result["left_bytes"] == result["cap_bytes"] - result["total_bytes"]
    assert (result["recipe"], result["fitted_from"], result["calibrated"]) == ("pr162-small-fit", "pr162-small", False)
    assert f"{result['total_bytes']:,}" in done.stdout


@pytest.fixture
def random_checkpoint(tmp_path):
    """Writes a full-size one and gives its path."""

    def write(preset):
        bench_fit.random_checkpoint(tmp_path / f"{preset}.safetensors", preset, bench_fit.SPREADS[preset])
        return tmp_path / f"{preset}.safetensors"

    return write


def test_36_million_weights_land_at_16_million_bytes(pgolf_process, random_checkpoint):
    done = pgolf_process(
        "pack", random_checkpoint("pr1716"), "--recipe", "pr1716", "--fit", "--dry-run", "--json", timeout=600
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert 15_998_400 <= said["total_bytes"] <= said["cap_bytes"] == 16_000_000
    assert abs(said["fit"]["predicted_bytes"] / said["artifact_bytes"] - 1) <= 0.002


def test_what_pull_request_339_missed_the_cap_by_is_one_flag(pgolf_process, random_checkpoint, tmp_path):
    """Its log states 16,170,051 bytes; the cost of the way back is printed."""
    ask = ("pack", random_checkpoint("pr339"), "--recipe", "pr339", "-o", tmp_path / "out")
    total = pgolf_process(*ask, "--cap", 1).stderr.partition(" = ")[2].partition(" bytes")[0]
    cap = int(total.replace(",", "")) - 170_051
    done = pgolf_process(*ask, "--cap", cap, "--fit", timeout=600)
    assert done.returncode == 0, done.stderr
    written = sum((tmp_path / "out" / name).stat().st_size for name in ("train_gpt.py", "model.bin"))
    assert cap - 1_600 <= written <= cap
    before, after = re.search(r"^cost: SNR ([\d.]+) -> ([\d.]+) dB$", done.stdout, re.MULTILINE).groups()
    assert 0 < float(before) - float(after) < 1
    missed = re.search(r"predicted [\d,]+ \(([-+][\d.]+) %\)", done.stdout)[1]
    assert abs(float(missed)) <= 0.2
