"""Quantizers against the original programs' numbers and against their own definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError
from codec.quantize import RowQuantizer, quantize_int8
from tests.strategies import float_matrices

FORMS = {"int6_per_row": RowQuantizer(bits=6).quantize, "int8_float_tensor": quantize_int8}


@pytest.mark.parametrize("form", FORMS)
def test_equals_pull_request_162(shared, form):
    golden = np.load(shared / "data/golden/162/quantize.npz")
    cases = [key.split("/")[1] for key in golden.files if key.startswith(f"{form}/") and key.endswith("/q")]
    assert len(cases) == 8
    for case in cases:
        tensor = FORMS[form](golden[f"in/{case}"])
        assert np.array_equal(tensor.levels, golden[f"{form}/{case}/q"]), case
        assert np.array_equal(tensor.scales, np.ravel(golden[f"{form}/{case}/scale"])), case
        assert np.array_equal(tensor.dequantize(), golden[f"{form}/{case}/deq"]), case


@given(float_matrices, st.integers(2, 8))
def test_error_is_at_most_half_a_step_inside_the_range(weights, bits):
    tensor = RowQuantizer(bits=bits).quantize(weights)
    top = 2 ** (bits - 1) - 1
    assert -top - 1 <= tensor.levels.min() <= tensor.levels.max() <= top
    steps = tensor.scales.astype(np.float64).reshape(-1, *[1] * (weights.ndim - 1))
    # The largest weight may sit up to half a float16 unit of the scale beyond the last level.
    slack = top * steps * 2**-11
    assert (np.abs(tensor.dequantize() - weights) <= steps / 2 + slack + 1e-6).all()


@given(float_matrices)
def test_quantizing_what_was_dequantized_changes_nothing_at_int8(weights):
    once = quantize_int8(weights).dequantize()
    assert (
        np.abs(quantize_int8(once).dequantize() - once).max(initial=0) <= np.abs(weights).max(initial=0) / 100 + 1 / 127
    )


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
        RowQuantizer(bits=6).quantize(np.full((2, 2), 1e8, np.float32))
