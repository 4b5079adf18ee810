"""Steps by importance: every weight's error costs the same, within the bytes that steps are stored in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.decoder import octaves
from codec.quantization.gptq import factorize
from codec.quantization.rate_distortion.importance import Importance, Steps, importance
from codec.storage.calibration_file import Layers

EIGHTH = 2.0 ** (1 / 16)  # the most that rounding to eighths of an octave moves a step


def moments(columns, seed=0):
    random = np.random.default_rng(seed)
    seen = random.normal(size=(500, columns)) * 2.0 ** random.uniform(-3, 3, columns)
    seen += 0.5 * seen[:, ::-1]
    return seen.T @ seen / len(seen)


def steps_of(known, multiplier=0.01, exponent=1.0):
    factor = factorize(known.moments, len(known.moments))
    return Steps.of(known, factor, multiplier, exponent), factor


def test_every_errors_cost_is_the_same():
    """GPTQ's error of weight (r, j) is white in the basis of the Cholesky factor, where it costs rows[r] / U_jj^2."""
    known = Importance(moments=moments(24), rows=2.0 ** np.random.default_rng(1).uniform(-6, 6, 40))
    multiplier = 0.003
    steps, factor = steps_of(known, multiplier)
    columns = octaves(steps.column_steps)[factor.order].astype(np.float64)
    rows = octaves(steps.row_steps).astype(np.float64)
    costs = np.outer(rows * known.rows**0.5, columns / np.diag(factor.upper)) * steps.scale / multiplier
    assert costs.max() < EIGHTH**2 * 1.001
    assert costs.min() > EIGHTH**-2 / 1.001
    assert np.log2(costs).mean() == pytest.approx(0, abs=0.02)
    assert steps.column_steps.max() - steps.column_steps.min() > 12  # the rule has something to do


def test_exponents_of_0_make_all_alike():
    random = np.random.default_rng(2)
    known = Importance(moments=moments(16), rows=2.0 ** random.uniform(-6, 6, 30))
    assert (steps_of(known, exponent=0.0)[0].column_steps == 128).all()
    weights = random.normal(size=(30, 16)).astype(np.float32)
    flat = known.tempered(weights, 1e-9, 0.0, 0.25)
    np.testing.assert_allclose(flat.rows, known.rows.mean(), rtol=1e-6)
    same = known.tempered(weights, 1e-9, 1.0, 0.25)
    np.testing.assert_allclose(same.rows, known.rows, rtol=1e-6)


def test_a_column_of_no_input_does_not_move_the_others():
    full = moments(12)
    dead = full.copy()
    dead[5] = dead[:, 5] = 0
    steps, factor = steps_of(Importance(moments=dead, rows=np.ones(3)))
    assert factor.dead.nonzero()[0].tolist() == [5]
    assert steps.column_steps[5] == 128
    others = np.delete(np.arange(12), 5)
    small, _ = steps_of(Importance(moments=dead[np.ix_(others, others)], rows=np.ones(3)))
    # the damping is 1 % of a mean over other columns: about 0.1 of an eighth
    assert np.abs(steps.column_steps[others].astype(int) - small.column_steps).max() <= 1


@given(seed=st.integers(0, 999), rows=st.integers(1, 30), most=st.sampled_from([0.02, 0.08, 0.25]))
def test_no_rows_noise_is_above_its_bound(seed, rows, most):
    """Rounding leaves step^2 / 12 of a weight, whitened by the moments; a row's is compared with its own signal."""
    random = np.random.default_rng(seed)
    weights = (random.normal(size=(rows, 16)) * 2.0 ** random.uniform(-4, 4, (rows, 1))).astype(np.float32)
    known = Importance(moments=np.eye(16), rows=random.exponential(size=rows) ** 4)
    known.rows[0] = 0
    multiplier = 2.0 ** random.uniform(-6, 3)
    tempered = known.tempered(weights, multiplier, 1.0, most)
    steps, _ = steps_of(tempered, multiplier)
    noise = 16 * (octaves(steps.row_steps).astype(np.float64) * steps.scale) ** 2 / 12
    signal = np.square(weights, dtype=np.float64).sum(1)
    assert (noise <= 1.15 * most * signal).all()
    assert (tempered.rows >= known.rows * (1 - 1e-9)).all()


def test_noise_is_bounded_where_inputs_are_of_different_sizes():
    random = np.random.default_rng(4)
    weights = random.normal(size=(20, 24)).astype(np.float32)
    known = Importance.calibrated([(np.full(20, 1e-12), moments(24))])
    multiplier = 30.0
    tempered = known.tempered(weights, multiplier, 1.0, 0.25)
    steps, factor = steps_of(tempered, multiplier)
    upper = np.diag(factor.upper).astype(np.float64)
    own = octaves(steps.column_steps)[factor.order].astype(np.float64) / upper
    row = (octaves(steps.row_steps).astype(np.float64) * steps.scale) ** 2
    noise = row * np.square(own).sum() / 12
    signal = np.einsum("ij,jk,ik->i", weights, known.moments, weights)
    assert (noise < 1.2 * 0.25 * signal).all()
    assert (noise > 0.1 * signal).all()


@pytest.mark.parametrize("multiplier", [1e-6, 0.01, 10.0])
@pytest.mark.parametrize(
    ("weights", "known"),
    [
        (np.zeros((6, 5)), Importance(moments=moments(5), rows=np.ones(6))),
        (np.zeros((6, 5)), Importance.by_spread(np.zeros((6, 5), np.float32), 30)),
        (np.vstack([np.zeros((3, 5)), np.ones((3, 5))]), Importance(moments=moments(5), rows=np.arange(6.0))),
        (np.vstack([np.zeros((3, 5)), np.ones((3, 5))]), Importance.by_spread(np.eye(6, 5, 3, np.float32), 30)),
        (np.ones((6, 5)), Importance(moments=moments(5), rows=np.zeros(6))),
        (np.ones((6, 5)), Importance.calibrated([(np.zeros(6), np.zeros((5, 5)))])),
        (np.ones((6, 5)), Importance.calibrated([(np.ones(6), np.zeros((5, 5)))])),
        (np.ones((6, 1)), Importance(moments=np.ones((1, 1)), rows=np.arange(6.0))),
        (np.ones((1, 5)), Importance(moments=moments(5), rows=np.ones(1))),
        (np.full((6, 5), 1e-20), Importance.by_spread(np.full((6, 5), 1e-20, np.float32), 30)),
        (np.full((6, 5), 1e18), Importance.by_spread(np.full((6, 5), 1e18, np.float32), 30)),
    ],
    ids=["zero", "zero, guessed", "zero rows", "zero rows, guessed", "no sensitivity", "nothing matters",
         "no inputs", "one column", "one row", "tiny", "huge"],
)  # fmt: skip
def test_whatever_comes_steps_are_finite_and_above_0(weights, known, multiplier):
    weights = weights.astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        tempered = known.tempered(weights, multiplier, 1.0, 0.25)
        steps, _ = steps_of(tempered, multiplier)
        rows, columns = (steps.scale * octaves(each) for each in (steps.row_steps, steps.column_steps))
    assert steps.scale.dtype == np.float32
    assert (steps.row_steps.dtype, steps.column_steps.dtype) == (np.uint8, np.uint8)
    assert (steps.row_steps.shape, steps.column_steps.shape) == ((len(weights),), (weights.shape[1],))
    for each in (rows, columns, rows[:, None] * octaves(steps.column_steps)):
        assert np.isfinite(each).all()
        assert (each > 0).all()


def test_both_uses_of_an_embedding_count():
    first, second = moments(8, 1), moments(8, 2)
    ones, twos = np.random.default_rng(3).random((2, 10))
    known = Importance.calibrated([(ones, first), (twos, second)])
    assert np.trace(known.moments) / 8 == pytest.approx(1)
    np.testing.assert_allclose(known.rows, ones * np.trace(first) / 8 + twos * np.trace(second) / 8)
    # what an error costs on average over rows that are alike
    error = np.random.default_rng(4).normal(size=8)
    alike = Importance.calibrated([(np.full(10, 2.0), first), (np.full(10, 0.5), second)])
    assert error @ alike.moments @ error * alike.rows[0] == pytest.approx(
        2 * error @ first @ error + 0.5 * error @ second @ error
    )
    assert alike.mean() == pytest.approx(2 * np.trace(first) / 8 + 0.5 * np.trace(second) / 8)


def test_one_term_is_itself():
    rows, own = np.arange(1.0, 4.0), moments(5)
    known = Importance.calibrated([(rows, own)])
    np.testing.assert_allclose(known.rows[:, None, None] * known.moments, rows[:, None, None] * own)


def test_a_guess_gives_every_row_the_same_signal_over_noise():
    random = np.random.default_rng(5)
    weights = (random.normal(size=(12, 64)) * 2.0 ** random.uniform(-3, 3, (12, 1))).astype(np.float32)
    known, calibrated = importance("w", weights, None, 10_000)
    assert not calibrated
    np.testing.assert_allclose(known.rows * np.square(weights, dtype=np.float64).mean(1), 1e-4, rtol=1e-6)
    layers = Layers(hessians={"v": moments(64)}, sensitivities={"v": np.ones(12)}, batch_tokens=1.0)
    assert not importance("w", weights, layers, 1)[1]
    assert importance("v", weights, layers, 1)[1]
