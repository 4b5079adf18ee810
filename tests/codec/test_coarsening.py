"""Rules with wider and finer steps: the same formula, no clipping that the rule did not do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import Rule, load_recipe, recipe_names
from codec.errors import UsageError
from codec.quantization.coarsening import Coarsened, coarsened, finest

RULES = [
    Rule.of(treatment="int6"),
    Rule.of(treatment="int5", step="floor"),
    Rule.of(treatment="int6", step="power"),
    Rule.of(treatment="int6", step="search"),
    Rule.of(treatment="int6", step="std", k=12.85),
    Rule.of(treatment="int8"),
    Rule.of(treatment="int8", step="absmax", granularity="row-column"),
    Rule.of(treatment="int6", coarser=2.5),
]


def weights(spread=0.3):
    return (np.random.default_rng(0).standard_t(6, size=(40, 96)) * spread).astype(np.float32)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("octaves", [-9, -1.3, -0.5, 0.25, 1, 2.5])
def test_the_step_is_so_many_octaves_wider(rule, octaves):
    octaves = max(octaves, finest(rule))
    before, after = rule.apply(weights()), coarsened(rule, octaves).apply(weights())
    ratio = after.scales.astype(float) / before.scales
    power = 0.05 if "Power" in str(rule) else 0  # its step goes with 1 / (top + 1)
    search = "Search" in str(rule)  # may find another quantile
    assert search or np.allclose(ratio, 2.0**octaves, rtol=0.002 + power)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_rule_itself_at_zero_and_int8_at_the_finest(rule):
    assert coarsened(rule, 0) is rule
    end = coarsened(rule, finest(rule))
    assert end.treatment == "int8"
    assert end.quantizer.coarser == pytest.approx(1)
    assert finest(end) == pytest.approx(0)


@given(st.floats(0, 1), st.floats(0, 1))
def test_finer_steps_lose_less(first, second):
    rule = RULES[0]
    lowest = finest(rule)
    low, high = sorted(lowest + (4 - lowest) * each for each in (first, second))
    if high - low > 0.1:
        lost = [np.square(coarsened(rule, at).apply(weights()).dequantize() - weights()).sum() for at in (low, high)]
        assert lost[0] < lost[1]


def test_finer_steps_clip_nothing():
    rule = RULES[0]
    for octaves in np.linspace(finest(rule), 0, 9):
        treated = coarsened(rule, float(octaves)).apply(weights())
        errors = np.abs(treated.dequantize() - weights())
        assert (errors <= 0.502 * treated.scales.astype(np.float32)[:, None]).all()


def test_a_step_that_cannot_be_multiplied():
    for rule in (Rule.of(treatment="int3", step="five"), Rule.of(treatment="float16")):
        assert not isinstance(rule.quantizer, Coarsened)
        assert finest(rule) == 0
        with pytest.raises(TypeError, match="has no step to multiply"):
            coarsened(rule, 1)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("treatment", ["int6", "int8"])
def test_a_factor_that_makes_no_sense(treatment, value):
    with pytest.raises(UsageError, match="times as wide"):
        Rule.of(treatment=treatment, coarser=value)


def test_control_tensors_of_1716_have_no_factor():
    with pytest.raises(UsageError, match="takes no `coarser` here"):
        Rule.of(treatment="int8-tensor", coarser=2.0)


@pytest.mark.parametrize("name", recipe_names())
def test_a_rule_of_every_recipe_is_what_it_was(name):
    for rule in load_recipe(name).rules:
        if isinstance(rule.quantizer, Coarsened):
            assert coarsened(rule, 1.0).table() | {"coarser": None} == rule.table() | {"coarser": None}
