"""benchmarks/bench_fit.py: its JSON has to add up; the full sizes land where the challenge wants them."""

import json
import os
import subprocess
import sys

import pytest

from codec.storage.checkpoint import write_checkpoint
from tests.conftest import ROOT
from trainer.model.gpt import GPT, GPTConfig


def bench(*arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "bench_fit.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_report_adds_up(tmp_path):
    model = GPT(GPTConfig(vocab_size=640, seq_len=32, layers=2, dim=96, heads=2, kv_heads=2, mlp_hidden=192))
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    write_checkpoint(tmp_path / "checkpoint.safetensors", tensors, {"config": model.config.to_dict()})
    printed = bench(
        "--weights", tmp_path / "checkpoint.safetensors", "--caps", 1, "--output", tmp_path / "results.json"
    )
    (result,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert result["total_bytes"] == result["code_bytes"] + result["artifact_bytes"] <= result["cap_bytes"]
    assert result["left_bytes"] == result["cap_bytes"] - result["total_bytes"]
    assert (result["recipe"], result["fitted_from"], result["calibrated"]) == ("pr162-small-fit", "pr162-small", False)
    assert f"{result['total_bytes']:,}" in printed


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["pr1716", "pr339"])
def test_full_sizes(pgolf_process, preset, tmp_path):
    """36 M weights at 16,000,000, and pull request 339's situation: 170,051 bytes over, solved by the one flag."""
    bench("--preset", preset, "--keep", tmp_path, "--output", tmp_path / "results.json")
    (result,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert result["cap_bytes"] - 1_600 <= result["total_bytes"] <= result["cap_bytes"]
    assert abs(result["predicted_bytes"] / result["artifact_bytes"] - 1) <= 0.002
    if preset == "pr1716":
        assert result["cap_bytes"] == 16_000_000
        return
    ask = ("pack", tmp_path / "pr339.safetensors", "--recipe", preset, "--cap", result["cap_bytes"])
    over = pgolf_process(*ask, "-o", tmp_path / "out")
    assert (over.returncode, over.stdout) == (1, "")
    assert "170,051 over the cap of" in over.stderr
    solved = pgolf_process(*ask, "--fit", "-o", tmp_path / "out")
    assert solved.returncode == 0, solved.stderr
    assert f"{result['total_bytes']:,}" in solved.stdout
    before, after = result["snr_db"]
    assert 0 < before - after < 1
    assert f"cost: SNR {before:.2f} -> {after:.2f} dB" in solved.stdout
