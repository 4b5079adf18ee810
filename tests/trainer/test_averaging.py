"""Averages against the originals' results, and what validation in the middle of a run needs."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from trainer.optim.averaging import find_average
from trainer.optim.schedule import StepSettings, step_settings
from trainer.presets.catalog import PRESETS


def at(lr=1.0, done=0.0):
    return StepSettings(lr=lr, momentum=0.9, looping=True, qat=False, done=done)


def one(values, dtype=torch.float32):
    return nn.ParameterDict({"w": nn.Parameter(torch.as_tensor(values).to(dtype))})


def put(model, values):
    with torch.no_grad():
        model["w"].copy_(torch.as_tensor(values))


@pytest.mark.parametrize("seed", [1176, 1716])
@pytest.mark.parametrize("kind", ["w32", "w16"])
def test_moving_averages_are_the_originals(shared, seed, kind):
    with np.load(shared / f"data/golden/{seed}/optimizer.npz") as arrays:
        snapshots, wanted = arrays[f"ema/snapshots_{kind}"], arrays[f"ema/result_{kind}"]
    dtype = torch.float32 if kind == "w32" else torch.bfloat16
    model = one(snapshots[0], dtype)
    average = find_average(model, PRESETS[f"pr{seed}"].train)
    for step, snapshot in enumerate(snapshots[1:], 1):
        put(model, snapshot)
        average.update(model, step, at())
    # The original folds with mul and add, we with lerp: a float32 rounding per step, 4.8e-6 on every kind of processor.
    assert (dict(average.tensors())["w"] - torch.from_numpy(wanted)).abs().max() < 1e-5
    with average.applied(model):
        assert torch.equal(model["w"].detach(), dict(average.tensors())["w"].to(dtype))


@pytest.mark.parametrize("seed", [162, 339])
def test_snapshot_means_are_the_originals(shared, seed):
    config = PRESETS[f"pr{seed}"].train
    with np.load(shared / f"data/golden/{seed}/optimizer.npz") as arrays:
        golden = {name.removeprefix("swa/"): arrays[name] for name in arrays if name.startswith("swa/")}
    model = one(np.zeros((4, 6), np.float32))
    average = find_average(model, config)
    collected = []
    for step, lr in zip(golden["step"], golden["lr_scale"], strict=True):
        if step in golden["steps_collected"]:
            put(model, golden["collected_w32"][len(collected)])
        before = int(average.count)
        average.update(model, int(step), at(lr))
        if average.count > before:
            collected.append(int(step))
    assert collected == golden["steps_collected"].tolist()
    with average.applied(model):
        assert torch.equal(model["w"].detach(), torch.from_numpy(golden["result_w32"]))


@pytest.mark.parametrize("seed", [162, 339])
def test_a_bfloat16_mean_differs_by_the_originals_rounding_alone(shared, seed):
    """The originals add bfloat16 weights up in bfloat16; ours are added in float32 and rounded once."""
    with np.load(shared / f"data/golden/{seed}/optimizer.npz") as arrays:
        snapshots, theirs = torch.from_numpy(arrays["swa/collected_w16"]), torch.from_numpy(arrays["swa/result_w16"])
    model = one(snapshots[0], torch.bfloat16)
    average = find_average(model, replace(PRESETS["pr162"].train, swa_every=1))
    rounded_sum = torch.zeros_like(model["w"])
    for step, snapshot in enumerate(snapshots, 1):
        put(model, snapshot)
        rounded_sum = rounded_sum + model["w"]
        average.update(model, step, at(0.1))
    assert torch.equal((rounded_sum / len(snapshots)).float(), theirs)
    with average.applied(model):
        assert torch.equal(model["w"].detach(), snapshots.double().mean(0).bfloat16())


def test_the_published_number_of_snapshots():
    config = PRESETS["pr162"].train
    model = one([0.0])
    average = find_average(model, config)
    for step in range(1, 7380):
        average.update(model, step, step_settings(config, step - 1, (step - 1) * 600.075 / 7379))
    assert int(average.count) == 30


def test_a_late_moving_average_begins_with_the_weights_of_then():
    config = replace(PRESETS["tiny"].train, ema_decay=0.5, ema_from=0.5)
    model = one([100.0])
    average = find_average(model, config)
    for step, (value, done, wanted) in enumerate([(8.0, 0.4, 8.0), (4.0, 0.5, 4.0), (2.0, 0.6, 3.0)], 1):
        put(model, [value])
        average.update(model, step, at(done=done))
        with average.applied(model):
            assert model["w"].item() == wanted
        assert model["w"].item() == value


def test_before_the_first_snapshot_the_weights_are_their_own_average():
    model = one([3.0])
    average = find_average(model, replace(PRESETS["tiny"].train, ema_decay=0.0, swa_every=1))
    average.update(model, 1, at(lr=0.9))
    with average.applied(model):
        assert model["w"].item() == 3.0


def test_applied_weights_go_back():
    model = nn.Linear(3, 2)
    average = find_average(model, replace(PRESETS["tiny"].train, ema_decay=0.5))
    first = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(2.0)
    average.update(model, 1, at())
    with contextlib.suppress(RuntimeError), average.applied(model):
        assert torch.allclose(model.weight, first + 1)
        raise RuntimeError
    assert torch.equal(model.weight, first + 2)


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"ema_decay": 0.9, "ema_from": 0.1}, {"swa_every": 2}])
def test_an_average_goes_on_from_its_saved_tensors(options):
    config = replace(PRESETS["tiny"].train, **{"ema_decay": 0.0, **options})
    model = one([1.0, 2.0])
    average = find_average(model, config)
    for step in range(1, 11):
        if step == 5:
            saved = {name: tensor.clone() for name, tensor in average.tensors()}
            average = find_average(one([7.0, 7.0]), config)
            for name, tensor in average.tensors():
                tensor.copy_(saved[name])
        put(model, [float(step), -float(step)])
        average.update(model, step, at(lr=0.1, done=step / 10))
    whole = find_average(one([1.0, 2.0]), config)
    other = one([1.0, 2.0])
    for step in range(1, 11):
        put(other, [float(step), -float(step)])
        whole.update(other, step, at(lr=0.1, done=step / 10))
    with average.applied(model), whole.applied(other):
        assert torch.equal(model["w"], other["w"])


def test_no_average_was_asked_for():
    assert find_average(one([1.0]), replace(PRESETS["tiny"].train, ema_decay=0.0)) is None
