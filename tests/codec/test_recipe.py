"""Recipes against the original's own classification; a user's TOML and its mistakes."""

import json
import math

import numpy as np
import pytest

from codec import QuantizedTensor, load_recipe, quantize_checkpoint
from codec.errors import InputError, UsageError
from codec.recipe import recipe_names

# The original's words for what it did to a tensor, and ours.
LABELS = {"fp16 passthrough": "float16", "int6 per-row (fp16 scale)": "int6", "int8 per-row (fp16 scale)": "int8"}


def test_pr162_treats_every_tensor_as_the_original_does(shared):
    manifest = json.loads((shared / "data/golden/162/manifest_full.json").read_text())
    golden = json.loads((shared / "data/golden/162/classification.json").read_text())["tensors"]
    recipe = load_recipe("pr162")
    for name, entry in golden.items():
        shape = manifest["state_dict"][name]["shape"]
        ours = recipe.rule(name, math.prod(shape)).treatment
        assert ours == LABELS[entry["treatment"]], name
    assert len(golden) == 96


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_ends_with_a_rule_for_everything(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.rule("anything", 9_000_000).treatment in ("int6", "int8", "float16")


def test_a_checkpoint_gets_its_treatments():
    random = np.random.default_rng(0)
    tensors = {
        "blocks.0.attn.c_q.weight": random.normal(size=(64, 64)),
        "tok_emb.weight": random.normal(size=(64, 64)),
        "norm": random.normal(size=8),
        "count": np.arange(3),
    }
    treated = quantize_checkpoint(tensors, load_recipe("pr162-small"))
    assert isinstance(treated["blocks.0.attn.c_q.weight"], QuantizedTensor)
    assert np.abs(treated["blocks.0.attn.c_q.weight"].levels).max() <= 32
    assert treated["norm"].dtype == np.float16
    assert treated["count"].dtype == tensors["count"].dtype


def test_nan_names_its_tensor():
    with pytest.raises(InputError, match="tensor `x`: 1 of 2 weights are not finite"):
        quantize_checkpoint({"x": np.array([1, np.nan], np.float32)}, load_recipe("pr162"))


def test_what_float16_cannot_hold_is_refused():
    with pytest.raises(InputError, match="1 of 2 weights are beyond float16"):
        quantize_checkpoint({"x": np.array([1, 1e6], np.float32)}, load_recipe("pr162"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('version = 2\nname="a"\nabout="b"\ncoder="zstd-22"\n[[rules]]\ntreatment="int6"', "version 2"),
        ('version = 1\nname="a"\nabout="b"\ncoder="zstd-22"\n[[rules]]\ntreatment="int9"', "did you mean `int"),
        ('version = 1\nname="a"\nabout="b"\ncoder="zstd-22"\n[[rules]]\ntreatmen="int6"', "did you mean `treatment`"),
        ('version = 1\nname="a"\nabout="b"\ncoder="zstd-23"\n[[rules]]\ntreatment="int6"', "did you mean `zstd-22`"),
        ('version = 1\nname="a"\nabout="b"\n[[rules]]\ntreatment="int6"', "coder"),
        ('version = 1\nname="a"\nabout="b"\ncoder="zstd-22"', "no \\[\\[rules\\]\\]"),
        ("version = ", "not valid TOML"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_unknown_recipe_gets_a_suggestion():
    with pytest.raises(UsageError, match="did you mean `pr162`"):
        load_recipe("pr126")
