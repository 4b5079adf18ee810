"""Which weights share a step: rows, columns, blocks of columns, and rows times columns under GPTQ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.decoder import octaves
from codec.errors import InputError
from codec.quantization.gptq import DAMPING, factorize, propagate
from codec.quantization.granularity import GRANULARITIES, Grid
from codec.quantization.recipe import Rule
from tests.strategies import float_matrices

EIGHTH = 2 ** (1 / 8)


def quantizer(**parameters):
    return Rule.of(treatment=parameters.pop("treatment", "int6"), **parameters).quantizer


def steps(tensor):
    """float64 (rows, columns): the step of every weight."""
    columns = np.ones(tensor.levels.shape[1]) if tensor.column_steps is None else octaves(tensor.column_steps)
    return tensor.scales.astype(np.float64)[:, None] * columns


@pytest.fixture
def uneven():
    """(weights (96, 64) whose columns differ by up to 2**5 in size, Hessian of inputs that even the outputs out)."""
    random = np.random.default_rng(0)
    sizes = np.exp2(random.uniform(-5, 0, 64))
    inputs = random.normal(size=(600, 64)) @ (np.eye(64) + 0.2 * random.normal(size=(64, 64))) / sizes
    return (random.normal(size=(96, 64)) * sizes).astype(np.float32), inputs.T @ inputs


def weighted_error(tensor, weights, hessian):
    error = tensor.dequantize() - weights.astype(np.float64)
    return float(((error @ hessian) * error).sum())


def test_one_step_for_the_tensor(uneven):
    weights, _ = uneven
    tensor = quantizer(granularity="tensor", symmetric=True).quantize(weights)
    assert (tensor.scales.dtype, tensor.scales.shape, tensor.column_steps) == (np.float32, (1,), None)
    assert tensor.scales[0] == np.abs(weights).max() / np.float32(31)


@pytest.mark.parametrize("block", [1, 7, 64, 100])
def test_a_step_for_every_block_of_columns(uneven, block):
    """The rule's own step or up to an eighth of an octave more, so no weight clips."""
    weights, _ = uneven
    tensor = quantizer(granularity="column", block=block).quantize(weights)
    assert (tensor.scales == tensor.scales[0]).all()
    found = steps(tensor)
    for start in range(0, 64, block):
        own = np.abs(weights[:, start : start + block]).max() / 31
        assert (found[:, start : start + block] == found[0, start]).all()
        assert own * 0.99999 <= found[0, start] <= own * EIGHTH * 1.00001
    assert (np.abs(tensor.dequantize() - weights) <= found * 0.50001).all()


@pytest.mark.parametrize("block", [1, 5])
def test_rows_times_columns(uneven, block):
    """Factors are the columns' relative size to half an eighth of an octave; rows are fitted to what is left."""
    weights, _ = uneven
    tensor = quantizer(granularity="row-column", block=block, symmetric=True).quantize(weights)
    factors = octaves(tensor.column_steps)
    for start in range(0, 64, block):
        size = np.sqrt(np.square(weights[:, start : start + block], dtype=np.float64).mean())
        wanted = size / np.sqrt(np.square(weights, dtype=np.float64).mean())
        assert (factors[start : start + block] == factors[start]).all()
        assert EIGHTH**-0.5001 <= factors[start] / wanted <= EIGHTH**0.5001
    assert np.allclose(tensor.scales.astype(float), np.abs(weights / factors).max(1) / 31, rtol=2**-11)
    assert (np.abs(tensor.dequantize() - weights) <= steps(tensor) * (0.50001 + 31 * 2**-11)).all()


def test_columns_of_one_size_need_no_factors():
    weights = np.array([[1, -1, 1], [2, 2, -2]], np.float32)
    by_row, both = (quantizer(granularity=name).quantize(weights) for name in ("row", "row-column"))
    assert both.column_steps is None
    assert np.array_equal(both.levels, by_row.levels)
    assert np.array_equal(both.scales, by_row.scales)


@pytest.mark.parametrize("granularity", GRANULARITIES.names())
@pytest.mark.parametrize("weights", [np.zeros((3, 4)), np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(()), np.zeros(5)])
def test_zero_empty_and_scalar_tensors_are_defined(granularity, weights):
    hessian = np.eye(weights.shape[-1] if weights.ndim else 1)
    for gptq in (False, True):
        tensor = quantizer(granularity=granularity, gptq=gptq).quantize(weights, hessian)
        assert tensor.dequantize().shape == weights.shape
        assert not tensor.dequantize().any()
        assert tensor.column_steps is None


@given(float_matrices, st.sampled_from(GRANULARITIES.names()), st.integers(1, 5))
def test_a_vector_is_a_row_and_a_zero_column_stays_zero(weights, granularity, block):
    options = {"block": block} if "column" in granularity else {}
    weights[..., 0] = 0
    tensor = quantizer(granularity=granularity, **options).quantize(weights)
    assert not tensor.dequantize()[..., 0].any()
    if weights.ndim < 2:
        assert tensor.column_steps is None
        assert tensor.scales.shape == (1,)


def test_column_steps_lower_the_weighted_error(uneven):
    """Several times, with GPTQ both: a row's step suits its largest columns, and here the small ones count as much."""
    weights, hessian = uneven
    found = {
        (granularity, gptq): weighted_error(
            quantizer(treatment="int4", granularity=granularity, gptq=gptq).quantize(weights, hessian), weights, hessian
        )
        for granularity in ("row", "column", "row-column")
        for gptq in (False, True)
    }
    assert found["row-column", True] < 0.2 * found["row", True]
    assert found["column", True] < 0.2 * found["row", True]
    assert found["row-column", True] < 0.8 * found["row-column", False]


def test_gptq_rounds_in_units_of_the_column(uneven):
    """Against the definition, one column at a time in float64."""
    weights, hessian = uneven
    tensor = quantizer(treatment="int5", granularity="row-column", step="std", k=8.0, gptq=True).quantize(
        weights, hessian
    )
    found, left = steps(tensor), weights.astype(np.float64)
    damped = hessian + DAMPING * hessian.diagonal().mean() * np.eye(64)
    order = np.argsort(-damped.diagonal(), kind="stable")
    left, found = left[:, order], found[:, order]
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    wanted = np.zeros_like(left)
    for column in range(64):
        wanted[:, column] = np.rint(left[:, column] / found[:, column]).clip(-15, 15)
        error = (left[:, column] - wanted[:, column] * found[:, column]) / upper[column, column]
        left[:, column:] -= np.outer(error, upper[column, column:])
    different = tensor.levels[:, order] != wanted
    assert different.sum() <= different.size // 500  # float32 against float64


def test_column_steps_of_one_change_nothing_in_gptq(uneven):
    weights, hessian = uneven
    scales = (np.abs(weights).max(1, keepdims=True) / 31).astype(np.float16).astype(np.float32)
    factor = factorize(hessian, 64)
    plain, ones = (propagate(weights, factor, Grid(scales, each), -31, 31) for each in (None, np.full(64, 128.0)))
    assert np.array_equal(plain, ones)


def test_a_scale_beyond_float16_is_refused():
    with pytest.raises(InputError, match="float16 ends at 65504"):
        quantizer(granularity="column").quantize(np.full((2, 2), 1e8, np.float32))
