"""A preset from outside: registered by a plugin, or given as a TOML file; trained, resumed and packed as ours are."""

import json

import numpy as np
import pytest

from codec.storage.checkpoint import read_checkpoint
from trainer.data.dataset import build_dataset

PLUGIN = """\
from dataclasses import replace

from trainer.presets.catalog import add_preset, find_preset

tiny = find_preset("tiny")
add_preset(
    replace(
        tiny,
        name="toy",
        description="tiny with wider layers",
        model=replace(tiny.model, mlp_hidden=96),
        train=replace(tiny.train, steps=6, save_every=3, log_every=2),
    )
)
"""
FILE = """\
version = 1
name = "toy"
description = "tiny with wider layers"
extends = "tiny"

[model]
mlp_hidden = 96

[train]
steps = 6
save_every = 3
log_every = 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 4)) for _ in range(20)]
    folder = tmp_path_factory.mktemp("text") / "data"
    build_dataset([" ".join(random.choice(words, 60)) + "." for _ in range(100)], folder, vocab_size=300)
    return folder


@pytest.fixture
def train(pgolf, data, tmp_path):
    """Train for a few steps into tmp_path/run -> (CompletedProcess, run folder)."""

    def run(*arguments):
        fixed = ("--data", data, "--device", "cpu", "--threads", 1, "--limit-tokens", 100, "--json")
        return pgolf(*arguments, *fixed, "-o", tmp_path / "run"), tmp_path / "run"

    return run


def identity(folder):
    return json.loads((folder / "train.log").read_text().splitlines()[0])


@pytest.mark.slow
def test_a_plugins_preset_is_trained_and_packed(pgolf, train, tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    unknown, _ = train("train", "toy")
    assert (unknown.returncode, "there is no preset `toy`" in unknown.stderr) == (2, True)
    done, folder = train("--plugin", tmp_path / "plugin.py", "train", "toy", "--set", "grad_clip=0.5")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 6
    said = identity(folder)
    assert (said["preset"], said["model"]["mlp_hidden"], said["train"]["grad_clip"]) == ("toy", 96, 0.5)
    packed = pgolf(
        "pack", folder / "checkpoint.safetensors", "--recipe", "pr162-small", "-o", tmp_path / "submission", "--json"
    )
    assert packed.returncode == 0, packed.stderr
    assert json.loads(packed.stdout)["artifact_bytes"] == (tmp_path / "submission" / "model.bin").stat().st_size


def test_a_file_is_the_preset_that_it_describes(train, tmp_path):
    """The weights are those of the plugin's preset; resuming with another content is refused, with the same goes on."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    file = tmp_path / "toy.toml"
    file.write_text(FILE)
    done, folder = train("train", file)
    assert done.returncode == 0, done.stderr
    tensors, notes = read_checkpoint(folder / "checkpoint.safetensors")
    assert tensors["blocks.0.mlp.fc.weight"].shape == (96, 32)
    assert (notes["preset"], notes["config"]["mlp_hidden"]) == ("toy", 96)
    said = identity(folder)
    assert (said["preset"], said["train"]["steps"], said["train"]["batch_tokens"]) == ("toy", 6, 256)
    again, _ = train("--plugin", tmp_path / "plugin.py", "train", "toy", "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["weights_sha256"] == json.loads(done.stdout)["weights_sha256"]
    file.write_text(FILE.replace("steps = 6", "steps = 8"))
    other, _ = train("train", file, "--resume")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "the saved run is another one: train.steps was 6, is 8" in other.stderr


def test_a_mistake_in_the_file_is_one_sentence_and_leaves_nothing(train, tmp_path):
    file = tmp_path / "toy.toml"
    for text, code, words in (
        (FILE.replace("mlp_hidden", "mlp_hiden"), 2, "[model] has an unknown key `mlp_hiden`; did you mean"),
        (FILE.replace("steps = 6", 'steps = "6"'), 2, '[train] `steps` is "6", it must be a whole number'),
        (FILE.replace('"tiny"', '"base.toml"'), 3, "base.toml: no such file"),
        (FILE.replace("mlp_hidden", "kv_heads"), 2, "2 heads and 96 kv_heads do not fit dim 32"),
    ):
        file.write_text(text)
        done, folder = train("train", file)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert done.stderr.startswith(f"Error: {file}")
        assert words in done.stderr
        assert not folder.exists()
