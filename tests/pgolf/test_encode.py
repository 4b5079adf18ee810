"""`pgolf encode` and `decode` as a user runs them: a sharded bfloat16 checkpoint there and back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

RECIPE = """
version = 1
name = "mine"
about = "small tensors as they are"
coder = "zstd-22"

[[rules]]
treatment = "float16"
max_weights = 1000

[[rules]]
treatment = "int6"
"""


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shards = {
        "model-00001-of-00002.safetensors": {"a.weight": torch.randn(64, 80, generator=generator).bfloat16()},
        "model-00002-of-00002.safetensors": {"a.bias": torch.randn(64, generator=generator).bfloat16() * 1e30},
    }
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name, {"format": "pt"})
    places = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path, {name: each for tensors in shards.values() for name, each in tensors.items()}


def test_a_sharded_checkpoint_there_and_back(pgolf, folder):
    place, exact = folder
    done = pgolf(
        *("encode", "model.safetensors.index.json", "--recipe", "mine.toml", "--bits-per-weight", "5", "-o", "m.pga"),
        cwd=place,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "other tensors (1 as they were)" in done.stdout
    assert (place / "m.pga").stat().st_size <= 5 * (64 * 80 + 64) / 8
    back = pgolf("decode", "m.pga", "-o", "back.safetensors", "--json", cwd=place)
    assert json.loads(back.stdout) == {
        "checkpoint": "back.safetensors",
        "tensors": 2,
        "weights": 64 * 80 + 64,
        "meta": {"recipe": "mine-fit"},
    }
    found = load_file(place / "back.safetensors")
    assert torch.equal(found["a.bias"], exact["a.bias"])
    assert found["a.bias"].dtype == torch.bfloat16
    assert (found["a.weight"] - exact["a.weight"].float()).square().mean() < 0.01
    again = pgolf("unpack", "m.pga", "-o", "again.safetensors", cwd=place)
    assert again.returncode == 0
    assert (place / "again.safetensors").read_bytes() == (place / "back.safetensors").read_bytes()


def test_a_dry_run_writes_nothing_and_json_says_it_all(pgolf, folder):
    place, _ = folder
    before = sorted(place.iterdir())
    done = pgolf("encode", ".", "--recipe", "mine.toml", "--dry-run", "--json", cwd=place)
    found = json.loads(done.stdout)
    assert (found["file"], found["passed_through"], found["weights"]) == (None, 1, 64 * 80 + 64)
    assert found["bits_per_weight"] == pytest.approx(8 * found["bytes"] / found["weights"])
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("encode", "."), 2, "Missing option '-o'"),
        (("encode", "nowhere", "-o", "x"), 3, "nowhere: no such file"),
        (("encode", ".", "--bytes", "900", "--bits-per-weight", "3", "-o", "x"), 2, "are two sizes"),
        (("encode", ".", "--recipe", "mine.toml", "--bytes", "300", "-o", "x"), 1, "over its limit of 300"),
        (("encode", ".", "--recipe", "pr612", "-o", "x"), 2, "unknown recipe `pr612`"),
        (("encode", ".", "--calibration", "mine.toml", "-o", "x"), 3, "mine.toml: is not a safetensors checkpoint"),
        (("decode", "mine.toml", "-o", "x"), 3, "mine.toml: "),
        (("decode", "nowhere", "-o", "x"), 3, "nowhere: no such file"),
    ],
)
def test_what_goes_wrong_is_one_sentence(pgolf, folder, arguments, code, sentence):
    done = pgolf(*arguments, cwd=folder[0])
    assert done.returncode == code
    assert sentence in done.stderr
    assert done.stderr.count("Error: ") == 1
    assert not (folder[0] / "x").exists()
