"""Recipes against the original's own classification; a user's TOML and its mistakes."""

import json

import numpy as np
import pytest

from codec import QuantizedTensor, load_recipe, quantize_checkpoint
from codec.errors import InputError, UsageError
from codec.quantization.granularity import Tensor
from codec.quantization.quantizers import ClippedInt8, Uniform
from codec.quantization.recipe_files import recipe_names
from codec.quantization.step_rules import AbsMax, Floor, Search, Std

# The original's words for what it did to a tensor, and the treatment and quantizer of ours.
LABELS = {
    "fp16 passthrough": ("float16", None),
    "int8 per-row (fp16 scale)": ("int8", ClippedInt8()),
    "int8 per-tensor (fp32 scale)": (
        "int8-tensor",
        Uniform(bits=8, step=AbsMax(), granularity=Tensor(), symmetric=True),
    ),
    "int8 per-row absmax (fp16 scale)": ("int8", Uniform(bits=8, step=AbsMax(), symmetric=True)),
    "int6 per-row absmax (fp16 scale)": ("int6", Uniform(bits=6, step=AbsMax(), symmetric=True)),
    "int8 gptq per-row": ("int8", Uniform(bits=8, step=Std(k=20), gptq=True)),
    "int6 gptq per-row": ("int6", Uniform(bits=6, step=Std(k=12.85), gptq=True)),
}
STEPS = {"pr162": AbsMax(), "pr339": Floor(), "pr1176": Search()}


@pytest.mark.parametrize(("recipe", "tensors"), [("pr162", 96), ("pr339", 117), ("pr1176", 121), ("pr1716", 130)])
def test_treats_every_tensor_as_the_original_does(shared, recipe, tensors):
    golden = json.loads((shared / f"data/golden/{recipe[2:]}/classification.json").read_text())["tensors"]
    for name, entry in golden.items():
        rule = load_recipe(recipe).rule(name, entry["numel"])
        label = entry["treatment"]
        if label == "int6 per-row (fp16 scale)":
            assert (rule.treatment, rule.quantizer) == ("int6", Uniform(bits=6, step=STEPS[recipe])), name
        else:
            assert (rule.treatment, rule.quantizer) == LABELS[label], name
        if "clip_sigmas" in entry:
            assert (entry["clip_sigmas"], entry["clip_range"]) == (rule.quantizer.step.k, rule.quantizer.top)
    assert len(golden) == tensors


def test_pr339_with_int5_mlp(shared):
    data = json.loads((shared / "data/golden/339/classification.json").read_text())
    for name, label in data["variant_INT5_MLP=1"].items():
        rule = load_recipe("pr339-int5mlp").rule(name, data["tensors"][name]["numel"])
        assert label.startswith({"float16": "fp16"}.get(rule.treatment, rule.treatment)), name
        if rule.treatment in ("int5", "int6"):
            assert rule.quantizer == Uniform(bits=int(rule.treatment[3:]), step=Floor())


def test_pr1123_bits_by_role():
    recipe = load_recipe("pr1123")
    bits = {
        name: recipe.rule(f"blocks.3.{name}.weight", 10**6).treatment
        for name in ("attn.c_q", "attn.c_k", "attn.c_v", "attn.proj", "mlp.up", "mlp.down")
    }
    assert list(bits.values()) == ["int6", "int6", "int5", "int5", "int3", "int4"]
    assert recipe.rule("tok_emb.weight", 10**6).treatment == "float16"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_ends_with_a_rule_for_everything(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.rule("anything", 9_000_000).treatment in ("int6", "int8", "float16", "rate-distortion")


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


HEAD = 'version = 1\nname = "mine"\nabout = ""\ncoder = "zstd-22"\n[[rules]]\n'


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
        (HEAD + 'names = "*.mlp.*"\ntreatment = "int6"', "`names` is a string, it takes a list of strings"),
        (HEAD + 'names = [3]\ntreatment = "int6"', "`names` .* takes a list of strings"),
        (HEAD + 'names = []\ntreatment = "int6"', "`names` is empty"),
        (HEAD + 'max_weights = "65536"\ntreatment = "int6"', "`max_weights` is a string, it takes an integer"),
        (HEAD + 'k = "12"\nstep = "std"\ntreatment = "int6"', "`k` is a string, it takes a number"),
        (HEAD + 'gptq = 1\ntreatment = "int6"', "`gptq` is an integer, it takes true or false"),
        (HEAD + 'treatment = "int6"\ngranularity = "rows"', "unknown granularity `rows`; did you mean `row`"),
        (HEAD + 'treatment = "int6"\ngranularty = "row"', "unknown key `granularty`; did you mean `granularity`"),
        (
            HEAD + 'treatment = "int6"\nk = 3.0',
            "mine.toml: treatment `int6` takes no `k` here; it belongs to step rule",
        ),
        (HEAD + 'treatment = "int6"\nstep = "floor"\ngranularity = "row-column"', "row-column fits rows to weights"),
        (HEAD + 'treatment = "int6"\nstep = ["std"]', "`step` is a list, it takes a string"),
        (HEAD + "treatment = 6", "`treatment` is an integer, it takes a string"),
        (HEAD + "names = ['a']", "lacks `treatment`"),
        (HEAD.replace('"zstd-22"', "5") + 'treatment = "int6"', "`coder` is an integer, it takes a string"),
        (HEAD.replace("[[rules]]", "rules = [1]"), "a rule is an integer"),
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


def test_a_rule_of_the_users_own_that_matches_nothing_is_an_error(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'version = 1\nname = "mine"\nabout = ""\ncoder = "zstd-22"\n[[rules]]\nnames = ["*.atn.c_q.weight"]\n'
        'treatment = "int6"\n[[rules]]\ntreatment = "float16"'
    )
    with pytest.raises(UsageError, match=r"matches no tensor; did you mean `blocks\.0\.attn\.c_q\.weight`"):
        quantize_checkpoint({"blocks.0.attn.c_q.weight": np.ones((2, 2)), "norm": np.ones(2)}, load_recipe(path))


@pytest.mark.parametrize("earlier", ["names = ['*.attn.*', 'norm']", "names = ['*']", ""])
@pytest.mark.parametrize("most", ["", "max_weights = 1\n"])
def test_a_rule_that_decides_nothing_is_an_error(tmp_path, earlier, most):
    """What it matches is taken by an earlier rule, or is too large for it."""
    if "attn" in earlier and not most:
        earlier = "names = ['*.mlp.*', '*.attn.*']"
    path = tmp_path / "mine.toml"
    rule = f"names = ['*.mlp.*']\n{most}treatment = 'int6'\n"
    path.write_text(f"{HEAD}{earlier}\ntreatment = 'float16'\n[[rules]]\n{rule}[[rules]]\ntreatment = 'float32'")
    tensors = {"blocks.0.attn.q": np.ones((2, 2)), "blocks.0.mlp.fc": np.ones((2, 2)), "norm": np.ones(2)}
    with pytest.raises(UsageError, match=r"the rule for `\*\.mlp\.\*` decides no tensor"):
        quantize_checkpoint(tensors, load_recipe(path))


def test_a_recipe_without_a_rule_for_everything_names_the_tensor(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'version = 1\nname = "mine"\nabout = ""\ncoder = "zstd-22"\n[[rules]]\nnames = ["a"]\ntreatment = "int6"'
    )
    with pytest.raises(UsageError, match="tensor `b`: no rule of recipe mine matches it"):
        quantize_checkpoint({"a": np.ones((2, 2)), "b": np.ones(2)}, load_recipe(path))
