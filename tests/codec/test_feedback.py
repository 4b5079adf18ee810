"""GPTQ with a trellis: what levels the format allows, what plain GPTQ does, and what the trellis is worth."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import encoder
from codec.quantization.gptq import factorize, propagate
from codec.quantization.granularity import Grid
from codec.quantization.rate_distortion.feedback import FARTHEST, Matrices, quantize
from codec.quantization.rate_distortion.rates import (
    CLASSES,
    SPAN,
    SPREADS,
    TAIL,
    TAIL_WIDTH,
    level_costs,
    normal_cdf,
    spread_classes,
)
from codec.quantization.rate_distortion.trellis import CHECKS, trellis_of


def alone(batch):
    """The same without feedback."""
    return dataclasses.replace(batch, factors=None)


def moments(columns, seed=0, inputs=400):
    random = np.random.default_rng(seed)
    seen = random.normal(size=(inputs, columns)) @ (np.eye(columns) + 0.5 * random.normal(size=(columns, columns)))
    return seen.T @ seen / inputs


def batch(*shape, step=0.25, seed=0, hessians=None):
    """shape: (matrices, rows, columns).  Rows and columns of different steps, as the format has them."""
    random, (matrices, rows, columns) = np.random.default_rng(seed), shape
    hessians = [moments(columns, seed + place) for place in range(matrices)] if hessians is None else hessians
    return Matrices(
        weights=random.standard_t(5, size=shape).astype(np.float32),
        factors=[factorize(each, columns) for each in hessians],
        row_steps=(step * 2.0 ** (random.integers(-8, 9, (matrices, rows)) / 8)).astype(np.float32),
        column_steps=(2.0 ** (random.integers(-8, 9, (matrices, columns)) / 8)).astype(np.float32),
    )


def part(whole, *places):
    return Matrices(
        weights=whole.weights[list(places)],
        factors=[whole.factors[place] for place in places],
        row_steps=whole.row_steps[list(places)],
        column_steps=whole.column_steps[list(places)],
    )


def values(own, levels):
    return levels * own.column_steps[:, None].astype(np.float64) * own.row_steps[:, :, None]


@given(
    states=st.sampled_from(sorted(CHECKS)),
    restart=st.sampled_from([1, 2, 7, 16, 1024]),
    rows=st.integers(1, 40),
    columns=st.integers(1, 9),
    rate_weight=st.sampled_from([0.0, 0.3]),
    step=st.sampled_from([0.02, 0.4, 3.0]),
    seed=st.integers(0, 999),
)
def test_levels_are_those_the_trellis_allows(states, restart, rows, columns, rate_weight, step, seed):
    trellis = trellis_of(states, restart)
    own = batch(2, rows, columns, step=step, seed=seed)
    levels = quantize(own, trellis, rate_weight)
    assert (levels.shape, levels.dtype) == ((2, rows, columns), np.int32)
    for matrix in levels:
        for row, now in enumerate(matrix):
            if row % restart == 0:
                state = np.zeros(columns, np.int64)
            assert np.array_equal(now & 1, state & 1)
            state = trellis.after(state, now)


def test_one_state_is_gptq():
    """Levels are twice those of `propagate`; sums of floats in another order may turn a tie, and the row after it."""
    hessian, random = moments(48), np.random.default_rng(1)
    rows = random.normal(size=(300, 48)).astype(np.float32)
    steps = (0.3 * 2.0 ** random.integers(-2, 3, 300)).astype(np.float32)
    factor = factorize(hessian, 48)
    wanted = propagate(rows, factor, Grid(steps[:, None]), -127, 127)
    own = Matrices(
        weights=rows[None], factors=[factor], row_steps=steps[None] / 2, column_steps=np.ones((1, 48), np.float32)
    )
    (found,) = quantize(own, trellis_of(1, 1), 0.0)
    assert not (found % 2).any()
    assert (found == 2 * wanted.astype(int)).all(1).mean() > 0.99
    errors = [each * steps[:, None].astype(np.float64) - rows for each in (found / 2, wanted.astype(float))]
    ours, theirs = (np.einsum("ij,jk,ik", error, hessian, error) for error in errors)
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_without_propagation_every_weight_is_rounded_alone():
    own = batch(2, 60, 20)
    levels = quantize(alone(own), trellis_of(1, 1), 0.0)
    wanted = own.weights / own.row_steps[:, :, None].astype(np.float64) / own.column_steps[:, None]
    assert np.abs(levels - wanted).max() <= 1 + 1e-4
    near = np.abs(np.abs(wanted / 2 % 1 - 0.5)) < 1e-5  # ties
    assert np.array_equal(levels[~near], 2 * np.rint(wanted / 2)[~near])


def test_propagation_leaves_less_where_it_counts():
    hessians = [moments(40, 5)]
    own = batch(1, 300, 40, hessians=hessians, step=0.5)
    for states in (1, 8):
        costs = []
        for propagated in (True, False):
            passed = own if propagated else alone(own)
            error = values(own, quantize(passed, trellis_of(states, 1024), 0.0)) - own.weights
            costs.append(np.einsum("ij,jk,ik", error[0], hessians[0], error[0]))
        assert costs[0] < 0.7 * costs[1]


def test_a_matrix_alone_gets_the_levels_it_gets_beside_others():
    whole, trellis = batch(5, 70, 33), trellis_of(16, 32)
    levels = quantize(whole, trellis, 0.3)
    for place in range(5):
        assert np.array_equal(quantize(part(whole, place), trellis, 0.3)[0], levels[place])
    assert np.array_equal(quantize(part(whole, 3, 1), trellis, 0.3), levels[[3, 1]])


@pytest.mark.parametrize("states", [1, 8])
def test_columns_that_no_input_reaches_are_as_near_0_as_the_trellis_allows(states):
    hessian = moments(12)
    hessian[[2, 7]] = hessian[:, [2, 7]] = 0
    own = batch(1, 50, 12, hessians=[hessian], step=0.1)
    found = quantize(own, trellis_of(states, 1024), 0.3)[0]
    assert not found[:, [2, 7]].any()
    assert (found[:, [0, 1, 3]] != 0).any(0).all()


def test_what_the_dead_columns_hold_changes_nothing():
    hessian = moments(12)
    hessian[2] = hessian[:, 2] = 0
    own = batch(1, 50, 12, hessians=[hessian])
    before = quantize(own, trellis_of(8, 1024), 0.3)
    own.weights[0, :, 2] = 1e6
    assert np.array_equal(quantize(own, trellis_of(8, 1024), 0.3), before)


def test_rows_after_a_restart_do_not_know_those_before():
    own, trellis = batch(1, 50, 1), trellis_of(8, 16)
    before = quantize(own, trellis, 0.0)[0]
    own.weights[0, :16] += 0.7
    after = quantize(own, trellis, 0.0)[0]
    assert (before[:16] != after[:16]).any()
    assert np.array_equal(before[16:], after[16:])


@pytest.mark.parametrize("states", [1, 4, 8])
@pytest.mark.parametrize("rate_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [0.7, 1.1, 1.9])
def test_no_sequence_has_less_error_and_bits(states, rate_weight, size):
    """Against every path of levels within 5 of the weights, in one column.

    Rows of two sizes, as many of each, a factor of 4 apart: so the model of spreads gives every row its own size.
    """
    trellis, own = trellis_of(states, 1024), np.array([1, -4, 4, 1, -1, -4]) * size
    matrices = Matrices(
        weights=own[None, :, None].astype(np.float32),
        factors=None,
        row_steps=np.ones((1, 6), np.float32),
        column_steps=np.ones((1, 1), np.float32),
    )
    bits = level_costs(abs(own))

    def price(row, level):
        return (own[row] - level) ** 2 + rate_weight * bits[row, abs(level)]

    cheapest = {0: 0.0}  # by state: all ways to it, each level tried
    for row in range(6):
        reached = {}
        for state, cost in cheapest.items():
            for level in range(math.floor(own[row]) - 5, math.ceil(own[row]) + 6):
                if level % 2 == state % 2:
                    end = int(trellis.after(np.array([state]), np.array([level]))[0])
                    reached[end] = min(reached.get(end, math.inf), cost + price(row, level))
        cheapest = reached
    found = quantize(matrices, trellis, rate_weight)[0, :, 0]
    assert sum(price(row, int(level)) for row, level in enumerate(found)) == pytest.approx(
        min(cheapest.values()), abs=1e-3
    )


def test_a_rate_buys_smaller_levels():
    own, trellis = batch(1, 400, 30, step=1.0), trellis_of(8, 1024)
    sizes = [np.abs(quantize(alone(own), trellis, weight)).mean() for weight in (0.0, 0.1, 0.3, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.97 * sizes[0]


def test_zeros_stay_zeros_without_a_warning():
    own = batch(2, 9, 5)
    own.weights[:] = 0
    with np.errstate(all="raise", under="ignore"):
        assert not quantize(own, trellis_of(64, 1024), 0.3).any()


def test_what_is_far_is_clipped_at_the_formats_end():
    own = batch(1, 6, 3, hessians=[np.eye(3)])
    own.weights[0, 2] = 1e9
    levels = quantize(alone(own), trellis_of(8, 1024), 0.3)
    assert FARTHEST - 8 <= levels.max() <= FARTHEST == encoder.FARTHEST


def entropy(levels):
    counts = np.unique(levels, return_counts=True)[1]
    chances = counts / counts.sum()
    return -(chances * np.log2(chances)).sum()


def excess_db(states, step, rate_weight):
    """The error above the bound of its own rate, a normal source's 4^-rate; bits are the levels' measured entropy."""
    weights = np.random.default_rng(7).normal(size=(1, 4096, 24)).astype(np.float32)
    own = Matrices(
        weights=weights,
        factors=[factorize(np.eye(24), 24)],
        row_steps=np.full((1, 4096), step, np.float32),
        column_steps=np.ones((1, 24), np.float32),
    )
    levels = quantize(alone(own), trellis_of(states, 4096), rate_weight)
    odd = levels % 2 == 1
    bits = sum(entropy(each) * each.size for each in (levels[odd], levels[~odd]) if each.size) / levels.size
    error = np.square(values(own, levels) - weights).mean()
    return 10 * math.log10(error * 4**bits), bits


def test_what_a_trellis_is_worth():
    """At 2.6 bits: a uniform step is 1.7 dB above the bound, 8 states 0.6, 64 states 0.4."""
    (uniform, _), (eight, bits), (many, _) = (excess_db(states, 0.34, 0.0) for states in (1, 8, 64))
    assert 2.5 < bits < 2.7
    assert 1.5 < uniform < 1.8
    assert uniform - eight > 1.0
    assert eight - many > 0.12
    assert many > 0  # nothing is below the bound


def test_a_rate_weight_pays_at_a_bit_per_weight():
    """At equal rate, about one bit."""
    (plain, bits), (weighed, fewer) = excess_db(8, 1.55, 0.0), excess_db(8, 1.35, 0.3)
    assert abs(bits - fewer) < 0.25
    assert weighed < plain - 0.2


def test_the_normal_distribution_is_that_of_the_library():
    x = np.linspace(-8, 8, 2001)
    exact = [math.erfc(-each / math.sqrt(2)) / 2 for each in x]
    assert np.abs(normal_cdf(x) - exact).max() <= 1.5e-7


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0, 7.0, 60.0])
def test_bits_of_levels_are_those_of_their_intervals(spread):
    def below(x, width):
        return math.erfc(-x / (width * math.sqrt(2))) / 2

    costs = level_costs(np.array([spread, 1.0]))
    assert (costs.shape, costs.dtype) == ((2, SPAN), np.float32)
    for level in range(SPAN):
        chance = sum(
            share * (below(level + 1, width * spread) - below(level - 1, width * spread))
            for share, width in ((1 - TAIL, 1.0), (TAIL, TAIL_WIDTH))
        )
        if chance > 1e-4:
            assert costs[0, level] == pytest.approx(-math.log2(chance), abs=0.01)
        else:
            assert 13 < costs[0, level] < 30
    assert (np.diff(costs[0]) > -0.1).all()


def test_a_spread_of_0_has_finite_bits():
    with np.errstate(all="raise", under="ignore"):
        costs = level_costs(np.zeros(1))
    assert costs[0, 0] == pytest.approx(0, abs=1e-3)
    assert np.isfinite(costs).all()


def test_rows_are_classed_by_half_octaves_around_their_matrix():
    random = np.random.default_rng(0)
    sizes = 2.0 ** np.array([-3, -2, -1, 0, 1])
    weights = random.normal(size=(5, 4000)) * sizes[:, None]
    found = spread_classes(weights[None])[0]
    assert np.array_equal(np.diff(found), [2, 2, 2, 2])  # an octave each
    own = np.sqrt(np.square(weights).mean(1) / np.square(weights).mean())
    assert np.abs(np.log2(SPREADS[found] / own)).max() <= 0.26
    with np.errstate(all="raise", under="ignore"):
        assert np.array_equal(spread_classes(np.zeros((3, 4))), [0, 0, 0])
    assert spread_classes(np.array([[1e6], [1e-6]])).max() < CLASSES
