"""The schedule against tables that the original scripts produced."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule import lr_multiplier, momentum, progress


@pytest.fixture(scope="module", params=["162", "1716"])
def golden(request, shared):
    with np.load(shared / f"data/golden/{request.param}/optimizer.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def test_learning_rates_are_the_originals(golden):
    notes = json.loads(str(golden["config"]))
    tables = [name.split("/")[1] for name in golden if name.startswith("lr_mul/") and name.endswith("/mul")]
    assert tables
    for table in tables:
        settings, wanted = notes[f"lr_mul/{table}"], golden[f"lr_mul/{table}/mul"]
        if "warmdown_frac" in settings:
            ours = [
                lr_multiplier(done, warmdown=settings["warmdown_frac"], min_lr=settings["min_lr"])
                for done in golden[f"lr_mul/{table}/frac"]
            ]
            assert ours == pytest.approx(wanted, abs=1e-9)
            continue
        steps, cap = settings["iterations"], (settings["max_wallclock_ms"] or 0) / 1000
        total = cap * 1000 / settings["ms_per_step"] if cap else steps
        ours = [
            lr_multiplier(progress(step, steps, elapsed / 1000, cap), warmdown=settings["warmdown_iters"] / total)
            for step, elapsed in zip(golden[f"lr_mul/{table}/step"], golden[f"lr_mul/{table}/elapsed_ms"], strict=True)
        ]
        # The first row of a wall-clock table has no step time yet, the last row is past the end of the run.
        assert ours[1:-1] == pytest.approx(wanted[1:-1], abs=1e-9)


def test_momentum_is_the_originals(golden):
    settings = json.loads(str(golden["config"]))["muon_momentum"]
    ours = [
        momentum(
            progress(step, 7379, 0.0, 0.0), limits=(settings["start"], settings["end"]), warmup=settings["steps"] / 7379
        )
        for step in golden["muon_momentum/step"]
    ]
    assert ours == pytest.approx(golden["muon_momentum/value"], abs=1e-12)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_rates_never_rise_and_stay_in_range(a, b, warmdown, min_lr):
    early, late = sorted((a, b))
    first, second = (lr_multiplier(done, warmdown=warmdown, min_lr=min_lr) for done in (early, late))
    assert 1 >= first >= second >= min(min_lr, 1)
    assert lr_multiplier(0.0, warmdown=warmdown) == 1


@given(st.integers(1, 1000), st.integers(0, 1000), st.floats(0, 1000), st.sampled_from([0.0, 10.0, 600.0]))
def test_progress_ends_at_whichever_limit_comes_first(steps, step, seconds, cap):
    done = progress(step, steps, seconds, cap)
    assert 0 <= done <= 1
    assert (done == 1) == (step >= steps or (cap > 0 and seconds >= cap))
