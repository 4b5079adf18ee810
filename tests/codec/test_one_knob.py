"""The knob of a model turned until its artifact lands under a limit."""

import dataclasses

import numpy as np
import pytest

from codec import Recipe, Rule, encode, load_recipe, quantize_checkpoint
from codec.allocation.damage import added_nats, squared_error
from codec.allocation.landing import CLOSE, LEAST
from codec.allocation.one_knob import WIDEST, fit_knob
from codec.errors import LimitError
from codec.quantization.recipe_files import recipe_toml
from tests.codec.toy_model import toy_model

RULE = Rule.of(treatment="rate-distortion", nats=1e-4, states=4, restart=48)
OWN = Recipe(name="toy", about="", coder="zstd-22", rules=(RULE,))
META = {"config": {"dim": 48}}


def model():
    """5,376 weights in matrices: a try is 0.15 s."""
    tensors, layers = toy_model()
    return {name: tensors[name] for name in ("q", "table", "gain", "skip", "ids")}, layers


def sized(tensors, layers, recipe=OWN, name="toy-fit"):
    return len(encode(quantize_checkpoint(tensors, recipe, layers), {**META, "recipe": name}))


@pytest.mark.parametrize("part", [0.75, 1.3, 2.0])
def test_it_lands_at_or_just_under_the_limit(part):
    tensors, layers = model()
    limit = int(part * sized(tensors, layers))
    fitted = fit_knob(tensors, OWN, limit, META, layers)
    room = max(limit // CLOSE, LEAST) + 16  # of 3 kB: tables alone move by as much, and tries are counted
    assert limit - room <= fitted.artifact_bytes <= limit
    assert sized(tensors, layers, fitted.recipe) == fitted.artifact_bytes
    assert fitted.artifact_bytes == len(encode(fitted.treated, {**META, "recipe": "toy-fit"}))
    assert (fitted.recipe.rules[0].quantizer.nats > 1e-4) == (part < 1)


def test_the_fitted_recipe_gives_the_same_bytes_again(tmp_path):
    tensors, layers = model()
    first, second = (fit_knob(tensors, OWN, 2_600, META, layers) for _ in range(2))
    blobs = {encode(each.treated, {**META, "recipe": "toy-fit"}) for each in (first, second)}
    assert first.to_dict() == second.to_dict()
    (tmp_path / "fitted.toml").write_text(recipe_toml(first.recipe))
    again = quantize_checkpoint(tensors, load_recipe(tmp_path / "fitted.toml"), layers)
    assert {encode(again, {**META, "recipe": "toy-fit"})} == blobs
    assert first.recipe.about == "Recipe toy with its knob fitted to an artifact of 2,600 bytes."


def test_below_the_least_it_says_so():
    tensors, layers = model()
    with pytest.raises(LimitError) as caught:
        fit_knob(tensors, OWN, 500, META, layers)
    widest = dataclasses.replace(RULE, quantizer=RULE.quantizer.coarsened(WIDEST))
    least = sized(tensors, layers, dataclasses.replace(OWN, rules=(widest,)))
    assert f"has {least:,} bytes, {least - 500:,} over its limit of 500" in str(caught.value)


def test_above_the_most_it_is_the_finest():
    fitted = fit_knob({"q": model()[0]["q"]}, OWN, 100_000, META)
    assert fitted.artifact_bytes <= 100_000
    assert fitted.recipe.rules[0].quantizer.nats < 1e-7


def test_nothing_to_turn_fits_or_does_not():
    tensors = {"ids": np.arange(50), "gain": np.ones(8, np.float32)}
    size = sized(tensors, None)
    fitted = fit_knob(tensors, OWN, size, META)
    assert (fitted.artifact_bytes, fitted.choices) == (size, ())
    with pytest.raises(LimitError, match=f"has {size:,} bytes, 1 over its limit"):
        fit_knob(tensors, OWN, size - 1, META)


def test_rules_beside_the_knob_stay_as_they_are():
    tensors, layers = model()
    mixed = dataclasses.replace(OWN, rules=(Rule.of(names=["q"], treatment="int6"), *OWN.rules))
    fitted = fit_knob(tensors, mixed, 4_000, META, layers)
    assert fitted.recipe.rules[0] == mixed.rules[0]
    assert fitted.artifact_bytes >= 3_968
    plain = quantize_checkpoint(tensors, mixed, layers)["q"]
    assert np.array_equal(fitted.treated["q"].levels, plain.levels)


def test_without_calibration():
    tensors, _ = model()
    fitted = fit_knob(tensors, OWN, 2_600, META)
    assert 2_568 <= fitted.artifact_bytes <= 2_600
    assert {each.after.nats for each in fitted.choices} == {None}


def test_choices_are_what_was_done_to_every_tensor():
    tensors, layers = model()
    fitted = fit_knob(tensors, OWN, 2_600, META, layers)
    assert [name for each in fitted.choices for name in each.names] == ["gain", "q", "skip", "table"]
    for each in fitted.choices:
        (name,) = each.names
        assert each.weights == tensors[name].size
        assert each.after.nats == added_nats(name, tensors[name], fitted.treated[name], layers)
        assert each.after.error == squared_error(tensors[name], fitted.treated[name])
        assert each.fitted == fitted.recipe.rules[0]


def test_progress_counts_the_tries():
    tensors, layers = model()
    seen = []
    fit_knob(tensors, OWN, 2_600, META, layers, lambda done, note: seen.append((done, note)))
    tries = [done for done, _ in seen]
    assert tries == sorted(tries)
    assert 100 <= tries[-1] <= 1000
    assert all(note.startswith(f"try {max(done - 1, 0) // 100 + 1}, ") for done, note in seen if done % 100)
    assert any(done % 100 for done in tries)
