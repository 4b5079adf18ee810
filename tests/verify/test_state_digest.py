"""The name of a state changes with all that it holds, and with nothing else."""

from collections import Counter, deque

import numpy as np
import pytest
import torch

from verify.sandbox.state_digest import state_digest


class Holder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.bool))
        self.table = {(1, 2): Counter({3: 4})}
        self.array, self.names, self.queue = np.arange(4), {"b", "a"}, deque([1.5, None])
        self.generator = torch.Generator().manual_seed(3)
        self.optimizer = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9)
        self.itself = self
        self.function = len


def step(holder):
    holder.weight.sum().backward()
    holder.optimizer.step()
    holder.weight.grad = None
    with torch.no_grad():
        holder.weight.copy_(torch.arange(6.0).view(2, 3))


CHANGES = {
    "weight": lambda holder: holder.weight.data.add_(1e-7),
    "buffer": lambda holder: holder.seen.fill_(True),
    "count": lambda holder: holder.table[1, 2].update([3]),
    "array": lambda holder: holder.array.__setitem__(2, 9),
    "set": lambda holder: holder.names.add("c"),
    "queue": lambda holder: holder.queue.append(0),
    "draws": lambda holder: torch.rand(1, generator=holder.generator),
    "momentum": step,
    "new": lambda holder: setattr(holder, "more", 1),
}


def test_equal_states_have_one_name():
    holder = Holder()
    assert state_digest(holder) == state_digest(holder) == state_digest(Holder())


@pytest.mark.parametrize("what", CHANGES)
def test_every_part_counts(what):
    holder = Holder()
    CHANGES[what](holder)
    assert state_digest(holder) != state_digest(Holder())


def test_what_is_too_deep_has_no_name():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert state_digest(nested) == ""
