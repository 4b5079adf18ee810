"""The schedule against tables that the original scripts produced."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.optim.schedule import step_settings
from trainer.presets.catalog import PRESETS

SEEDS = ["162", "339", "1176", "1716"]


@pytest.fixture(scope="module", params=SEEDS)
def golden(request, shared):
    with np.load(shared / f"data/golden/{request.param}/optimizer.npz") as arrays:
        found = {name: arrays[name] for name in arrays}
    return request.param, json.loads(str(found["config"])), found


def test_learning_rates_are_the_originals(golden):
    seed, notes, tables = golden
    preset = PRESETS[f"pr{seed}"].train
    names = [name.split("/")[1] for name in tables if name.startswith("lr_mul/") and name.endswith("/mul")]
    assert len(names) == 3
    for name in names:
        settings, wanted = notes[f"lr_mul/{name}"], tables[f"lr_mul/{name}/mul"]
        if "warmdown_frac" in settings:
            config = replace(preset, warmdown=settings["warmdown_frac"], min_lr=settings["min_lr"])
            places = [(0, 588.0 * done) for done in tables[f"lr_mul/{name}/frac"]]
        else:
            config = replace(
                preset,
                steps=settings["iterations"],
                warmdown_steps=settings["warmdown_iters"],
                max_seconds=(settings["max_wallclock_ms"] or 0.0) / 1000,
            )
            elapsed = tables[f"lr_mul/{name}/elapsed_ms"]
            # The original's multiplier jumps back to 1 at the step after the last, which is never run.
            run = tables[f"lr_mul/{name}/step"] < settings["iterations"]
            places = list(zip(tables[f"lr_mul/{name}/step"][run], elapsed[run] / 1000, strict=True))
            wanted = wanted[run]
        assert len(places) >= 200
        ours = [step_settings(config, int(step), float(seconds)).lr for step, seconds in places]
        assert ours == pytest.approx(wanted, abs=1e-9)


def test_the_presets_hold_the_recipes(golden):
    seed, notes, _ = golden
    preset = PRESETS[f"pr{seed}"].train
    assert preset.momentum == (notes["muon_momentum"]["start"], notes["muon_momentum"]["end"])
    assert preset.momentum_steps == notes["muon_momentum"]["steps"]
    recipe = notes["lr_mul/recipe" if seed == "1716" else "lr_mul/recipe_wallclock"]
    assert preset.warmdown == recipe.get("warmdown_frac", 0.0)
    assert preset.warmdown_steps == recipe.get("warmdown_iters", 0)
    assert preset.max_seconds == 600


def test_momentum_is_the_originals(golden):
    seed, _, tables = golden
    config = PRESETS[f"pr{seed}"].train
    ours = [step_settings(config, int(step), 0.0).momentum for step in tables["muon_momentum/step"]]
    assert ours == pytest.approx(tables["muon_momentum/value"], abs=1e-12)


def test_looping_begins_where_the_original_began_it(shared):
    config = PRESETS["pr1716"].train
    with np.load(shared / "data/golden/1716/optimizer.npz") as tables:
        for elapsed, done in zip(tables["training_frac/elapsed_ms"], tables["training_frac/frac"], strict=True):
            settings = step_settings(config, 0, elapsed / 1000)
            assert settings.done == pytest.approx(min(done, 1.0), abs=1e-12)
            assert settings.looping == (done >= 0.35)


def test_snapshots_of_the_published_run():
    """Log of pull request 162: 7,379 steps of 81.3 ms, snapshots from step 5,900 on, 30 of them."""
    config = PRESETS["pr162"].train
    taken = [
        done
        for done in range(50, 7380, 50)  # the settings are those of the step before
        if step_settings(config, done - 1, (done - 1) * 600.075 / 7379).lr < config.swa_below
    ]
    assert (taken[0], len(taken)) == (5900, 30)


configs = st.builds(
    replace,
    st.just(PRESETS["tiny"].train),
    steps=st.integers(1, 500),
    warmdown=st.floats(0, 1),
    min_lr=st.floats(0, 0.5),
    max_seconds=st.sampled_from([0.0, 10.0, 60.0]),
    reserve_seconds=st.floats(0, 5),
    loop_from=st.floats(0, 1),
    momentum_steps=st.integers(0, 100),
) | st.builds(
    replace,
    st.just(PRESETS["tiny"].train),
    steps=st.integers(1, 500),
    warmdown=st.just(0.0),
    warmdown_steps=st.integers(0, 600),
    max_seconds=st.sampled_from([0.0, 10.0, 60.0]),
)


@given(configs, st.floats(0.01, 2))
def test_a_run_at_constant_speed_never_turns_back(config, step_seconds):
    settings = [step_settings(config, step, step * step_seconds) for step in range(config.steps + 1)]
    for before, after in pairwise(settings):
        # Dividing by a mean step time leaves a few units of float64.
        assert 1 >= before.lr >= after.lr - 1e-9
        assert after.lr >= config.min_lr
        assert before.done <= after.done <= 1
        assert before.looping <= after.looping
        assert config.momentum[0] <= before.momentum <= after.momentum <= config.momentum[1]
    ends = config.steps * step_seconds >= config.max_seconds - config.reserve_seconds
    assert settings[-1].done == 1
    if config.warmdown or config.warmdown_steps:
        assert settings[-1].lr == pytest.approx(config.min_lr, abs=1e-9)
    assert step_settings(config, 0, 0.0).done == 0
    if config.max_seconds and ends:
        assert step_settings(config, 0, config.max_seconds - config.reserve_seconds).done == 1


def test_a_run_that_its_steps_end_cools_down_all_the_same():
    config = replace(PRESETS["pr162"].train, steps=100, warmdown_steps=40)
    assert step_settings(config, 59, 5.9).lr == 1
    assert step_settings(config, 80, 8.0).lr == pytest.approx(0.5)


def test_rounding_begins_below_its_rate():
    config = replace(PRESETS["tiny"].train, steps=100, warmdown=0.5, qat_below=0.21, qat_recipe="pr339")
    rounding = [step_settings(config, step, 0.0).qat for step in range(100)]
    assert rounding.index(True) == 90
    assert all(rounding[90:])
    assert not any(step_settings(PRESETS["tiny"].train, step, 0.0).qat for step in range(40))
