"""The moving average against the original's result."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from trainer.averaging import WeightAverage


@pytest.mark.parametrize("dtype", ["w32", "w16"])
def test_average_is_the_originals(shared, dtype):
    with np.load(shared / "data/golden/1716/optimizer.npz") as arrays:
        snapshots, wanted = arrays[f"ema/snapshots_{dtype}"], arrays[f"ema/result_{dtype}"]
    kind = torch.float32 if dtype == "w32" else torch.bfloat16
    model = nn.ParameterDict({"w": nn.Parameter(torch.from_numpy(snapshots[0]).to(kind))})
    average = WeightAverage(model, 0.9965)
    for snapshot in snapshots[1:]:
        model["w"].data.copy_(torch.from_numpy(snapshot))
        average.update(model)
    assert average.shadow["w"].dtype == torch.float32
    assert (average.shadow["w"] - torch.from_numpy(wanted)).abs().max() < 5e-6


def test_applied_weights_go_back():
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    first = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(2.0)
    average.update(model)
    with contextlib.suppress(RuntimeError), average.applied(model):
        assert torch.allclose(model.weight, first + 1)
        raise RuntimeError
    assert torch.allclose(model.weight, first + 2)
