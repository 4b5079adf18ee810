"""Quantizers against the original programs' numbers and against their own definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import QuantizedTensor, load_recipe, quantize_checkpoint
from codec.errors import InputError, UsageError
from codec.quantization.quantizers import Uniform
from codec.quantization.recipe import Rule
from tests.strategies import float_matrices


def quantizer(treatment, **parameters):
    return Rule.of(treatment=treatment, **parameters).quantizer


SEEDS = {
    (162, "int6_per_row"): quantizer("int6"),
    (162, "int8_float_tensor"): quantizer("int8"),
    (339, "int6_per_row"): quantizer("int6", step="floor"),
    (339, "int5_per_row"): quantizer("int5", step="floor"),
    (339, "int8_float_tensor"): quantizer("int8"),
    (1176, "int6_per_row"): quantizer("int6", step="search"),
    (1176, "int6_clip15"): quantizer("int5", step="search"),
    (1176, "int8_float_tensor"): quantizer("int8"),
}
GPTQ = {
    (1176, "gptq_int6"): quantizer("int6", step="search", gptq=True),
    (1716, "gptq_int6_k12.85"): quantizer("int6", step="std", k=12.85, gptq=True),
    (1716, "gptq_int8_k20"): quantizer("int8", step="std", k=20, gptq=True),
}
FORMS = {"int6_per_row": quantizer("int6").quantize, "int8_float_tensor": quantizer("int8").quantize}


@pytest.mark.parametrize(("seed", "form"), SEEDS)
def test_equals_the_original_program(shared, seed, form):
    golden = np.load(shared / f"data/golden/{seed}/quantize.npz")
    cases = [key.split("/")[1] for key in golden.files if key.startswith(f"{form}/") and key.endswith("/q")]
    assert len(cases) >= 6
    for case in cases:
        tensor = SEEDS[seed, form].quantize(golden[f"in/{case}"])
        assert np.array_equal(tensor.levels, golden[f"{form}/{case}/q"]), case
        assert np.array_equal(tensor.scales, np.ravel(golden[f"{form}/{case}/scale"])), case
        assert np.array_equal(tensor.dequantize(), golden[f"{form}/{case}/deq"]), case


@pytest.mark.parametrize(("seed", "form"), GPTQ)
@pytest.mark.parametrize("case", ["heavy_small", "heavy_large", "zero_rows", "outliers"])
def test_gptq_equals_the_original_program(shared, seed, form, case):
    golden = np.load(shared / f"data/golden/{seed}/quantize.npz")
    tensor = GPTQ[seed, form].quantize(golden[f"in/{case}"], golden[f"hessian/{case}"])
    assert np.array_equal(tensor.scales, golden[f"{form}/{case}/scale"])
    # Exactly equal with the linear algebra this was written on; another library may round a few columns differently.
    different = (tensor.levels != golden[f"{form}/{case}/q"]).sum()
    assert different <= tensor.levels.size // 1000
    assert np.abs(tensor.levels - golden[f"{form}/{case}/q"].astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("seed", "form", "bits", "k"), [(1176, "gptq_int6_block32", 6, 0), (1716, "gptq_int6_k3_block32", 6, 3)]
)
def test_gptq_does_not_depend_on_the_block(shared, monkeypatch, seed, form, bits, k):
    golden = np.load(shared / f"data/golden/{seed}/quantize.npz")
    monkeypatch.setattr("codec.quantization.gptq.BLOCK", 32)
    rounding = quantizer(f"int{bits}", gptq=True, **({"step": "std", "k": k} if k else {"step": "search"}))
    for case in ("heavy_small", "heavy_large", "zero_rows", "outliers"):
        tensor = rounding.quantize(golden[f"in/{case}"], golden[f"hessian/{case}"])
        assert (tensor.levels != golden[f"{form}/{case}/q"]).sum() <= tensor.levels.size // 1000
        assert np.array_equal(tensor.scales, golden[f"{form}/{case}/scale"])


def test_gptq_beats_rounding_where_it_counts():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(500, 64)) @ random.normal(size=(64, 64))
    weights = random.normal(size=(32, 64)).astype(np.float32)
    hessian = (inputs.T @ inputs).astype(np.float32)
    rounding = quantizer("int4", gptq=True)
    errors = [
        np.square((rounding.quantize(weights, each).dequantize() - weights) @ inputs.T).sum()
        for each in (None, hessian)
    ]
    assert errors[1] < 0.6 * errors[0]


def test_gptq_needs_a_hessian_that_fits():
    with pytest.raises(InputError, match="has 4 columns, its Hessian is"):
        quantizer("int6", gptq=True).quantize(np.ones((2, 4), np.float32), np.eye(3))
    with pytest.raises(InputError, match="not positive definite"):
        quantizer("int6", gptq=True).quantize(np.ones((2, 2), np.float32), np.array([[1, 5], [5, 1.0]]))


def test_mixed_state_dict_of_1716(shared):
    golden = np.load(shared / "data/golden/1716/quantize.npz")
    names = [key.removeprefix("mixed/in/") for key in golden.files if key.startswith("mixed/in/")]
    # bigram.embed was 2,100 rows in the run, above the 65,536 weights of the passthrough; 64 of them are stored.
    weights = {name: golden[f"mixed/in/{name}"] for name in names}
    weights["bigram.embed.weight"] = np.tile(weights["bigram.embed.weight"], (40, 1))
    treated = quantize_checkpoint(weights, load_recipe("pr1716"))
    for name, tensor in treated.items():
        kept = 64 if name == "bigram.embed.weight" else None
        values = tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor.astype(np.float32)
        assert np.array_equal(values[:kept] if kept else values, golden[f"mixed/deq/{name}"]), name
        form = "q_pt" if f"mixed/out/{name}.q_pt" in golden else "q"
        if isinstance(tensor, QuantizedTensor):
            assert np.array_equal(tensor.levels[:kept], golden[f"mixed/out/{name}.{form}"]), name
    assert len(treated) == 14


def test_five_levels():
    weights = np.array([[-3, -1, 0, 1, 3, 0, 0.1, 0]], np.float32)  # mean |w| 1.0125
    tensor = quantizer("int3", step="five").quantize(weights)
    assert tensor.levels.tolist() == [[-2, -1, 0, 1, 2, 0, 0, 0]]
    assert tensor.scales[0] == np.float16(14 / 10)  # sum w q / sum q^2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"treatment": "int2"}, "unknown treatment `int2`; did you mean"),
        ({"treatment": "int9"}, "unknown treatment `int9`; did you mean"),
        ({"treatment": "int6", "step": "std"}, "step rule `std` lacks `k`"),
        ({"treatment": "int6", "step": "std", "k": 0}, "step rule `std` with k = 0"),
        ({"treatment": "int6", "k": 3.0}, "treatment `int6` takes no `k` here; it belongs to step rule `std`"),
        ({"treatment": "int6", "step": "mean"}, "unknown step rule `mean`"),
        ({"treatment": "int6", "step": "five"}, "unknown step rule `five`"),
        ({"treatment": "int3", "step": "five", "gptq": True}, "treatment `int3` takes no `gptq` here"),
        ({"treatment": "int8", "symmetric": True}, "treatment `int8` takes no `symmetric` here; give it a step"),
        ({"treatment": "int8-tensor", "gptq": True}, "treatment `int8-tensor` takes no `gptq` here"),
        ({"treatment": "float16", "step": "absmax"}, "treatment `float16` takes no `step` here"),
        ({"treatment": "int8", "granularity": "column"}, "treatment `int8` takes no `granularity` here; give it a"),
        ({"treatment": "int6", "granularity": "colum"}, "unknown granularity `colum`; did you mean `column`"),
        ({"treatment": "int6", "block": 64}, "takes no `block` here; it belongs to granularity `column`, granularity"),
        ({"treatment": "int6", "granularity": "column", "block": 0}, "a block of 0 columns"),
        ({"treatment": "int6", "granularity": "row-column", "step": "floor"}, "row-column fits rows to weights it has"),
        ({"treatment": "int6", "granularity": "row-column", "step": "search"}, "row-column fits rows to weights it"),
    ],
)
def test_impossible_quantizers_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Rule.of(**options)


def test_a_rule_needs_the_quantizer_that_its_treatment_names():
    with pytest.raises(UsageError, match=r"a rule of treatment `int6` without quantizer; make it with `Rule\.of`"):
        Rule(treatment="int6")


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_that_levels_cannot_have_are_refused(bits):
    with pytest.raises(UsageError, match=f"{bits} bits per level, the quantizers do 2 to 8"):
        Uniform(bits=bits)


@given(float_matrices, st.integers(2, 8))
def test_error_is_at_most_half_a_step_inside_the_range(weights, bits):
    tensor = Uniform(bits=bits).quantize(weights)
    top = 2 ** (bits - 1) - 1
    assert -top - 1 <= tensor.levels.min() <= tensor.levels.max() <= top
    steps = tensor.scales.astype(np.float64).reshape(-1, *[1] * (weights.ndim - 1))
    # The largest weight may sit up to half a float16 unit of the scale beyond the last level.
    slack = top * steps * 2**-11
    assert (np.abs(tensor.dequantize() - weights) <= steps / 2 + slack + 1e-6).all()


@given(float_matrices)
def test_quantizing_what_was_dequantized_changes_nothing_at_int8(weights):
    quantize = quantizer("int8").quantize
    once = quantize(weights).dequantize()
    assert np.abs(quantize(once).dequantize() - once).max(initial=0) <= np.abs(weights).max(initial=0) / 100 + 1 / 127


@pytest.mark.parametrize("form", FORMS.values())
@pytest.mark.parametrize("weights", [np.zeros((3, 4)), np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(()), np.zeros(5)])
def test_zero_empty_and_scalar_tensors_are_defined(form, weights):
    tensor = form(weights.astype(np.float32))
    assert tensor.dequantize().shape == weights.shape
    assert not tensor.dequantize().any()


@pytest.mark.parametrize("form", FORMS.values())
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_are_refused_with_their_number(form, bad):
    weights = np.ones((4, 4), np.float32)
    weights[1, 2] = bad
    with pytest.raises(InputError, match="1 of 16 weights are not finite"):
        form(weights)


def test_a_scale_beyond_float16_is_refused():
    with pytest.raises(InputError, match="float16 ends at 65504"):
        quantizer("int6").quantize(np.full((2, 2), 1e8, np.float32))


@pytest.mark.parametrize("weights", [np.full((3, 8), 0.25), np.full((5, 1), -3.0), np.full(7, 2.0)])
def test_rows_without_spread_keep_their_value(weights):
    """std(row) is 0: 1716 would divide by 1e-10 or lose the row; ours takes max|row| instead."""
    tensor = quantizer("int6", step="std", k=12.85).quantize(weights)
    assert np.allclose(tensor.dequantize(), weights, rtol=1e-3)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (0,)])
@pytest.mark.parametrize("step", ["absmax", "floor", "search", "std", "power"])
def test_empty_tensors_need_no_hessian(step, shape):
    rounding = quantizer("int6", step=step, gptq=True, **({"k": 12.85} if step == "std" else {}))
    assert rounding.quantize(np.zeros(shape), np.eye(4)).levels.shape == shape


@pytest.mark.parametrize("treatment", ["int6", "int8", "int8-tensor"])
def test_weights_beyond_float32_are_refused(treatment):
    with pytest.raises(InputError, match="1 of 4 weights are beyond float32"):
        quantizer(treatment).quantize(np.array([[1.0, 1e300], [0.0, 1.0]]))


def test_a_hessian_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="Hessian is not finite"):
        quantizer("int6", gptq=True).quantize(np.ones((2, 2)), np.full((2, 2), np.nan))
