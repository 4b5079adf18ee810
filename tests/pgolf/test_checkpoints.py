"""Checkpoints of the seed systems, in their own layouts, through the whole command line."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from codec.storage.checkpoint import read_checkpoint, write_checkpoint
from tests.trainer.shrunk import SEEDS, golden_arrays, golden_config, golden_state
from trainer.model.gpt import GPT, GPTConfig
from trainer.presets.catalog import PRESETS
from trainer.presets.published_layouts import split_banks


@pytest.fixture(params=SEEDS)
def native(request, shared, tmp_path):
    """(preset, file in the seed's own key layout with the shrunk config, its arrays, ids, the golden logits)."""
    seed, path = request.param, tmp_path / "native.safetensors"
    golden = golden_arrays(shared, seed, "model_looped" if seed == 1716 else "model")
    state = golden_state(shared, seed)
    write_checkpoint(path, state, {"config": golden_config(seed).to_dict()})
    ids, logits = torch.from_numpy(golden["input_ids"]).long(), torch.from_numpy(golden["logits"])
    return f"pr{seed}", path, state, ids, logits


LOGITS = """
import runpy, sys, torch
model = runpy.run_path("train_gpt.py", run_name="packed")["load"]("model.bin")
with torch.no_grad():
    torch.save(model.logits(torch.load(sys.argv[1])), sys.argv[1])
"""


def packed_logits(folder, ids, path):
    """What the packed script's own `load` gives, in a process that has only the submission."""
    torch.save(ids, path)
    subprocess.run([sys.executable, "-I", "-c", LOGITS, path], cwd=folder, check=True, timeout=120)
    return torch.load(path)


def test_native_layouts_survive_pack_and_unpack(pgolf, pgolf_process, native, tmp_path):
    preset, path, state, ids, logits = native
    done = pgolf("pack", path, "--recipe", preset, "-o", tmp_path / "sub")
    assert done.returncode == 0, done.stderr
    packed = packed_logits(tmp_path / "sub", ids, tmp_path / "ids.pt")
    # Every matrix here is below the recipes' threshold for integers or, in 1716, becomes int8: float16 at the least.
    assert (packed - logits).abs().max() < 0.5
    unpack = pgolf_process if preset == "pr162" else pgolf  # once as a user has it
    done = unpack("unpack", tmp_path / "sub", "-o", tmp_path / "back.safetensors")
    assert done.returncode == 0, done.stderr
    tensors, metadata = read_checkpoint(tmp_path / "back.safetensors")
    assert {name: array.shape for name, array in tensors.items()} == {name: a.shape for name, a in state.items()}
    assert metadata["config"] == read_checkpoint(path)[1]["config"]
    for name, array in tensors.items():  # int8 at 20 standard deviations errs by 0.08 of one
        assert np.abs(array - state[name]).max(initial=0) <= 0.03 * np.abs(state[name]).max(initial=0), name
    model = GPT(GPTConfig.from_dict(metadata["config"]))
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in split_banks(tensors).items()})
    model.looping = True
    with torch.no_grad():
        assert (model.eval().logits(ids) - packed).abs().max() < 1e-4
    again = pgolf("pack", tmp_path / "back.safetensors", "--recipe", preset, "-o", tmp_path / "again")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_measure_sees_the_tensors_that_pack_packs(pgolf, native):
    preset, path, *_ = native
    done = pgolf("measure", path, "--recipe", preset, "--json")
    assert done.returncode == 0, done.stderr
    packed = json.loads(pgolf("pack", path, "--recipe", preset, "--dry-run", "--json").stdout)["artifact_bytes"]
    measured = json.loads(done.stdout)
    assert not [row["name"] for row in measured["tensors"] if row["name"].endswith("_bank")]
    assert abs(measured["recipes"][0]["bytes"] - packed) < 2000  # measure stores no model config


def test_sizes_are_read_off_the_shapes_of_a_full_size_file(pgolf, tmp_path):
    config = replace(PRESETS["pr1176"].model, layers=3, dim=128, heads=2, kv_heads=1, mlp_hidden=256, xsa_layers=3)
    torch.manual_seed(0)
    state = GPT(config).state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "model.pt")
    done = pgolf("pack", tmp_path / "model.pt", "--recipe", "pr1176", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert "warning, the model is a guess, no shape shows activation leaky2, xsa_layers 3, rope_dims 16" in done.stderr
    assert "value_embed_layers 2" in done.stderr
    del state["blocks.1.mlp.proj.weight"]
    torch.save(state, tmp_path / "model.pt")
    done = pgolf("pack", tmp_path / "model.pt", "--recipe", "pr1176", "--dry-run")
    assert done.returncode == 3
    assert "blocks.1.mlp.proj.weight" in done.stderr


@pytest.mark.slow
def test_the_real_baseline_checkpoint_scores_what_its_source_says(pgolf_process, shared, tmp_path):
    weights = shared / "data/weights/pg_SamTruss/model_best_2.02_int8.ptz"
    done = pgolf_process("pack", weights, "--recipe", "stored", "-o", tmp_path / "sub")
    assert done.returncode == 0, done.stderr
    tokens = shared / "data/tokens/fineweb_val_000000.head1M.sp1024.bin"
    tokenizer = shared / "data/tokenizers/fineweb_1024_bpe.model"
    limits = ("--limit-tokens", 65_536, "--stride", 1024)
    done = pgolf_process(
        "verify", tmp_path / "sub", "--val", tokens, "--tokenizer", tokenizer, *limits, "--json", timeout=600
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["scores"][0]["tokens"] == 65_536
    assert report["scores"][0]["bpb"] == pytest.approx(2.119, abs=0.0005)
