"""A quantizer registered from outside: a recipe names it, an artifact holds it, training rounds with it."""

import json

import numpy as np
import pytest
import torch

from codec import decode, encode, load_recipe, quantize_checkpoint
from codec.errors import UsageError
from tests.extensions import ternary_plugin
from tests.packager.conftest import checkpoint, data  # noqa: F401
from trainer.optim.qat import fake_quantized

RECIPE = """\
version = 1
name = "mine"
about = "MLP matrices in three levels"
coder = "zstd-22"

[[rules]]
names = ["*.mlp.*"]
treatment = "ternary"
threshold = 0.5

[[rules]]
treatment = "float32"
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def weights():
    random = np.random.default_rng(0)
    return {
        "blocks.0.mlp.fc": random.normal(size=(24, 16)).astype(np.float32),
        "gain": random.normal(size=16).astype(np.float32),
    }


def test_an_artifact_holds_what_the_recipe_asked_for(recipe):
    tensors, loaded = weights(), load_recipe(recipe)
    assert loaded.rules[0].quantizer == ternary_plugin.Ternary(threshold=0.5)
    treated = quantize_checkpoint(tensors, loaded)
    back = decode(encode(treated, {}))
    levels, scales = treated["blocks.0.mlp.fc"][:2]
    large = np.abs(tensors["blocks.0.mlp.fc"]) > 0.5 * np.abs(tensors["blocks.0.mlp.fc"]).mean(1, keepdims=True)
    assert np.array_equal(levels, np.sign(tensors["blocks.0.mlp.fc"]) * large)
    assert np.array_equal(back["blocks.0.mlp.fc"], levels * scales.astype(np.float32)[:, None])
    assert np.array_equal(back["gain"], tensors["gain"])


def test_training_rounds_with_it(recipe):
    model = torch.nn.ModuleDict(
        {"blocks": torch.nn.ModuleList([torch.nn.ModuleDict({"mlp": torch.nn.Linear(16, 24)})])}
    )
    floats = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    wanted = quantize_checkpoint(floats, load_recipe(recipe))
    with fake_quantized(model, load_recipe(recipe)):
        inside = {name: weight.detach().clone().numpy() for name, weight in model.named_parameters()}
        model["blocks"][0]["mlp"](torch.ones(16)).sum().backward()
    assert inside.keys() == floats.keys()
    for name, weight in model.named_parameters():
        assert np.array_equal(inside[name], wanted[name].dequantize())
        assert np.array_equal(weight.detach().numpy(), floats[name])
        assert weight.grad is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("thresold = 0.5", "mine.toml: unknown key `thresold`; did you mean `threshold`?"),
        ("threshold = '0.5'", "mine.toml: `threshold` is a string, it takes a number"),
        ("threshold = -1", "mine.toml: a threshold of -1; it is a share of the mean weight"),
        ("threshold = 0.5\ngptq = true", "mine.toml: treatment `ternary` takes no `gptq` here"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(recipe, line, message):
    recipe.write_text(RECIPE.replace("threshold = 0.5", line))
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe)
    assert str(caught.value).endswith(message)


def test_a_name_belongs_to_one_class():
    with pytest.raises(UsageError, match="treatment `ternary` is registered already"):
        ternary_plugin.QUANTIZERS.register("ternary")(ternary_plugin.Ternary)


def test_the_command_line_measures_and_packs_with_a_plugin(pgolf_process, checkpoint, recipe, tmp_path):  # noqa: F811
    plugin = ("--plugin", ternary_plugin.__file__)
    unknown = pgolf_process("measure", checkpoint, "--recipe", recipe)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "mine.toml: unknown treatment `ternary`" in unknown.stderr
    measured = pgolf_process(*plugin, "measure", checkpoint, "--recipe", recipe, "--json")
    assert measured.returncode == 0, measured.stderr
    treatments = {row["name"]: row["treatment"] for row in json.loads(measured.stdout)["tensors"]}
    assert treatments["blocks.0.mlp.fc.weight"] == "ternary"
    packed = pgolf_process(*plugin, "pack", checkpoint, "--recipe", recipe, "-o", tmp_path / "submission", "--json")
    assert packed.returncode == 0, packed.stderr
    held = decode((tmp_path / "submission" / "model.bin").read_bytes())["blocks.0.mlp.fc.weight"]
    assert all(len(np.unique(np.abs(row))) <= 2 for row in held)
