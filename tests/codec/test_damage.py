"""Squared error and predicted nats of a rounded tensor, against the formulas written out."""

import numpy as np
import pytest

from codec import Rule
from codec.allocation.damage import added_nats, rounding_noise, squared_error
from codec.decoder import QuantizedTensor
from codec.storage.calibration_file import Layers


@pytest.fixture
def weights():
    return np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def test_the_squared_error(weights):
    treated = Rule.of(treatment="int4").apply(weights)
    expected = sum(
        (float(a) - float(b)) ** 2 for a, b in zip(weights.ravel(), treated.dequantize().ravel(), strict=True)
    )
    assert squared_error(weights, treated) == pytest.approx(expected, rel=1e-8)


def test_nats_are_half_the_quadratic_form_per_token(weights):
    treated = Rule.of(treatment="int4").apply(weights)
    inputs = np.random.default_rng(1).normal(size=(30, 7)).astype(np.float32)
    hessian, sensitivity = (inputs.T @ inputs).astype(np.float32), np.arange(5, dtype=np.float32)
    layers = Layers(hessians={"w": hessian}, sensitivities={"w": sensitivity}, batch_tokens=30.0)
    error = treated.dequantize().astype(np.float64) - weights
    outputs = inputs.astype(np.float64) @ error.T  # what the error adds to each output, token by token
    expected = 0.5 * (np.square(outputs).mean(0) * sensitivity).sum()
    assert added_nats("w", weights, treated, layers) == pytest.approx(expected, rel=1e-5)


def test_both_terms_of_a_table_and_the_moments_of_a_parameter_add_up(weights):
    random = np.random.default_rng(2)
    treated = Rule.of(treatment="int4").apply(weights)
    error = treated.dequantize().astype(np.float64) - weights
    inputs, slopes = random.normal(size=(30, 7)), random.normal(size=(20, 7))
    outputs, reads = random.random(5), random.random(5)
    layers = Layers(
        hessians={"w": inputs.T @ inputs},
        sensitivities={"w": outputs},
        gradients={"w": slopes.T @ slopes},
        frequencies={"w": reads},
        fishers={"p": np.square(weights)},
        batch_tokens=30.0,
    )
    expected = sum(
        0.5 * (outputs[row] * np.square(inputs @ error[row]).sum() + reads[row] * np.square(slopes @ error[row]).sum())
        for row in range(5)
    )
    assert added_nats("w", weights, treated, layers) == pytest.approx(expected / 30, rel=1e-8)
    expected = 0.5 * (np.square(weights, dtype=np.float64) * np.square(error)).sum() / 30
    assert added_nats("p", weights, treated, layers) == pytest.approx(expected, rel=1e-8)
    # what stays a float loses what float16 loses
    half = weights.astype(np.float16)
    expected = 0.5 * np.square(weights * (half - weights.astype(np.float64))).sum() / 30
    assert added_nats("p", weights, half, layers) == pytest.approx(expected, rel=1e-8)
    assert added_nats("p", weights, weights, layers) == 0


def test_a_scalar_and_an_empty_tensor_have_nats():
    one, none = np.float32(0.3).reshape(()), np.zeros((0, 3), np.float32)
    fishers = {"one": np.float32(4).reshape(()), "none": none}
    layers = Layers(hessians={}, sensitivities={}, fishers=fishers, batch_tokens=2.0)
    assert added_nats("one", one, one + np.float32(0.1), layers) == pytest.approx(0.5 * 2 * 0.1**2, rel=1e-6)
    assert added_nats("none", none, none, layers) == 0


def test_what_was_not_calibrated_has_no_nats(weights):
    treated = Rule.of(treatment="int4").apply(weights)
    full = {"w": np.eye(7, dtype=np.float32)}
    rows = {"w": np.ones(5, np.float32)}
    assert added_nats("w", weights, treated, None) is None
    for hessians, sensitivities, tokens in (({}, rows, 1.0), (full, {}, 1.0), (full, rows, None)):
        layers = Layers(hessians=hessians, sensitivities=sensitivities, batch_tokens=tokens)
        assert added_nats("w", weights, treated, layers) is None


def test_rounding_noise_is_what_fine_steps_leave():
    weights = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    for rule in (
        Rule.of(treatment="int8", step="absmax"),
        Rule.of(treatment="int8", step="absmax", granularity="column"),
    ):
        treated = rule.apply(weights)
        assert squared_error(weights, treated) / weights.size == pytest.approx(rounding_noise(treated), rel=0.03)
    empty = QuantizedTensor(np.zeros((0, 3), np.int8), np.zeros(0, np.float16))
    assert rounding_noise(empty) == 0
