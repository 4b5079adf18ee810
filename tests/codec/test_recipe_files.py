"""Recipes as TOML: read back they are equal."""

import dataclasses

import numpy as np
import pytest

from codec import Recipe, Rule, load_recipe, recipe_names
from codec.errors import UsageError
from codec.quantization.recipe import quantize_checkpoint
from codec.quantization.recipe_files import recipe_text, recipe_toml
from codec.quantization.step_rules import AbsMax, Times
from tests.extensions import ternary_plugin


def back(recipe, tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(recipe_toml(recipe).encode())
    return dataclasses.replace(load_recipe(path), strict=recipe.strict)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_read_back(name, tmp_path):
    assert back(load_recipe(name), tmp_path) == load_recipe(name)


@pytest.mark.parametrize("name", recipe_names())
def test_a_copy_does_what_its_original_does(name, tmp_path):
    """Rules for names that this model has not are no error in it; what the user changes is."""
    text = recipe_text(name)
    copy = tmp_path / "copy.toml"
    copy.write_text(text)
    assert load_recipe(copy) == load_recipe(name)
    tensors = {"blocks.0.attn.c_q.weight": np.ones((2, 64), np.float32)}
    quantize_checkpoint(tensors, load_recipe(copy))
    copy.write_text(text.replace("[[rules]]", '[[rules]]\nnames = ["*atn*"]\ntreatment = "int6"\n\n[[rules]]', 1))
    with pytest.raises(UsageError, match=r"the rule for `\*atn\*` matches no tensor"):
        quantize_checkpoint(tensors, load_recipe(copy))


def test_odd_text_and_parameters_are_read_back(tmp_path):
    recipe = Recipe(
        name='quo"ted',
        about="two\nlines, a \\ and ünïcode \x7f",
        coder="zstd-22",
        rules=(
            Rule.of(treatment="int6", names=['a"b[[]*', "*.c"], max_weights=7, step="std", k=1e-7, coarser=1e22),
            Rule.of(treatment="int5", step="power", granularity="row-column", block=64, symmetric=True, gptq=True),
            Rule.of(treatment="int8-clipped", coarser=3.0),
            Rule.of(treatment="ternary", threshold=0.5),
            Rule.of(treatment="float32"),
        ),
    )
    assert back(recipe, tmp_path) == recipe


def test_a_quantizer_without_a_name():
    unnamed = Times(rule=AbsMax(), factor=2.0)
    rule = Rule(treatment="int6", quantizer=dataclasses.replace(Rule.of(treatment="int6").quantizer, step=unnamed))
    with pytest.raises(UsageError, match="a recipe has no name for the step rule"):
        recipe_toml(Recipe(name="x", about="", coder="zstd-22", rules=(rule,)))


def test_the_plugin_is_registered():
    assert ternary_plugin.Ternary(threshold=0.5) == Rule.of(treatment="ternary", threshold=0.5).quantizer
