"""benchmarks/bench_codec.py on a small checkpoint: its JSON has to add up."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from codec.encoder import encode
from codec.measurement.compressors import baseline_bytes
from codec.quantization.recipe import quantize_checkpoint
from codec.quantization.recipe_files import load_recipe
from codec.storage.checkpoint import write_checkpoint
from tests.conftest import ROOT

SHAPES = {"blocks.0.attn.c_q.weight": (128, 96), "blocks.0.mlp.fc.weight": (300, 96), "norm": (96,)}


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_codec", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def tensors():
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def report(tensors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_checkpoint(folder / "tiny.safetensors", tensors, {})
    manifest = {"state_dict": {name: {"shape": list(shape)} for name, shape in SHAPES.items()}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sources = ("--weights", folder / "tiny.safetensors", "--manifest", folder / "manifest.json")
    done = bench(*sources, "--recipe", "pr162-small", "--quick", "--output", folder / "results.json")
    assert done.returncode == 0, done.stderr
    assert "bit-packing" in done.stdout
    return json.loads((folder / "results.json").read_text())


def test_bytes_are_those_of_the_codec_and_of_the_peers(report, tensors):
    treated = quantize_checkpoint(tensors, load_recipe("pr162-small"))
    result = report["results"][0]
    assert (result["checkpoint"], result["recipe"]) == ("tiny.safetensors", "pr162-small")
    assert result["weights"] == sum(array.size for array in tensors.values())
    assert result["bytes"] == len(encode(treated, {}))
    assert set(result["peers"]) >= {"bit-packing", "zlib-9", "zstd-22", "brotli-11"}
    for name, peer in result["peers"].items():
        assert peer["bytes"] == baseline_bytes(name, treated)


def test_the_arithmetic_holds(report):
    assert [result["checkpoint"] for result in report["results"]] == ["tiny.safetensors", "synthetic"]
    for result in report["results"]:
        assert result["bits_per_weight"] == pytest.approx(8 * result["bytes"] / result["weights"])
        assert result["over_model_percent"] == pytest.approx(100 * (result["bytes"] / result["model_bytes"] - 1))
        assert 0 < result["over_model_percent"] < 1
        best = min(result["peers"].values(), key=lambda peer: peer["bytes"])
        assert result["ours_to_best_peer"] == best["ours_to_it"] == result["bytes"] / best["bytes"]
        assert result["peers"][result["best_peer"]] == best
        for action in ("encode", "decode"):
            assert result[f"{action}_ns_per_weight"] > 0
            # At least the float32 output of decoding, or the levels of encoding, must have been held.
            if result[f"{action}_peak_bytes"] is not None:
                assert result[f"{action}_peak_bytes"] > result["weights"]
                assert result[f"{action}_peak_of_float32"] == result[f"{action}_peak_bytes"] / (4 * result["weights"])


def test_the_machine_is_named_without_its_paths(report):
    assert report["machine"]["cpu"]
    assert {"numpy", "zstandard"} <= report["machine"]["versions"].keys()
    assert str(ROOT) not in json.dumps(report)


def test_a_missing_file_is_one_sentence(tmp_path):
    done = bench("--weights", tmp_path / "nothing.pt")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "no such file" in done.stderr
