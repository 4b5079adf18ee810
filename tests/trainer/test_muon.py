"""Muon against the original script's numbers and torch's own Muon; the parameter groups of a GPT."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from trainer.model import GPT, GPTConfig
from trainer.muon import Muon, optimizers, orthogonalize
from trainer.presets import PRESETS, TrainConfig

SHAPES = ("square", "tall", "wide", "very_wide")


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "data/golden/162/optimizer.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def close(ours, theirs, tolerance=1e-4):
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


@pytest.mark.parametrize("name", [*SHAPES, "decaying_spectrum"])
@pytest.mark.parametrize("steps", [5, 10])
def test_newton_schulz_is_the_originals(golden, name, steps):
    matrix = torch.from_numpy(golden[f"ns/{name}/in"])
    batch = torch.stack([torch.eye(*matrix.shape), matrix])  # the neighbour in the batch must not matter
    close(orthogonalize(batch, steps=steps)[1], golden[f"ns/{name}/steps{steps}_f32"])


def test_three_steps_are_the_originals(golden):
    settings = "nesterov_wd"
    config = json.loads(str(golden["config"]))["muon_configs"][settings]
    weights = {name: nn.Parameter(torch.from_numpy(golden[f"muon/param0/{name}"].copy())) for name in SHAPES}
    muon = Muon(weights.values(), lr=config["lr"], momentum=config["momentum"], weight_decay=config["weight_decay"])
    for step in range(3):
        for name, weight in weights.items():
            weight.grad = torch.from_numpy(golden[f"muon/grads/{name}"][step])
        muon.step()
        if step in (0, 2):
            for name, weight in weights.items():
                close(weight, golden[f"muon/{settings}/ns_f32/step{step + 1}/{name}"])
    for name, weight in weights.items():
        close(muon.state[weight]["momentum"], golden[f"muon/{settings}/momentum_buffer_after3/{name}"])


def test_agrees_with_torch_at_constant_momentum():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in [(32, 48), (48, 32), (32, 48), (32, 32)]]
    ours, theirs = ([nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    optimizer = Muon(ours, lr=0.02, momentum=0.95, weight_decay=0.1)
    oracle = torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="original")
    for _ in range(10):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = b.grad = torch.randn(a.shape, generator=generator)
        optimizer.step()
        oracle.step()
    for a, b, first in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (b - first).norm()  # torch iterates in bfloat16


def test_singular_values_come_near_one():
    generator = torch.Generator().manual_seed(1)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 128, 384, generator=generator)))
    assert values.min() > 0.6
    assert values.max() < 1.2


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="takes matrices"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_tensor_is_in_one_group(name):
    model = GPT(PRESETS["tiny"].model if name == "pr162" else PRESETS[name].model)
    grouped = [
        weight
        for optimizer in optimizers(model, PRESETS[name].train)
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))


def test_a_frozen_tensor_is_noticed():
    model = GPT(PRESETS["tiny"].model)
    model.bigram.embed.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="exactly one"):
        optimizers(model, PRESETS["tiny"].train)


def test_four_training_steps_are_the_originals(shared, golden):
    """Grouping, clipping, decay and both optimizers at once, on the original's own data and rates."""
    notes = json.loads(str(golden["config"]))
    model = GPT(
        GPTConfig(
            vocab_size=128,
            seq_len=64,
            layers=5,
            dim=64,
            heads=4,
            kv_heads=2,
            mlp_hidden=192,
            bigram_buckets=128,
            bigram_dim=16,
            smear=True,
        )
    )
    with np.load(shared / "data/golden/162/model.npz") as arrays:
        model.load_state_dict({name[6:]: torch.from_numpy(arrays[name]) for name in arrays if name[:6] == "state/"})
    config: TrainConfig = PRESETS["pr162"].train
    muon, adam = optimizers(model, config)
    expected = notes["train_param_groups"]
    names = {id(weight): name for name, weight in model.named_parameters()}
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                wanted = expected[names[id(weight)]]
                assert (group["lr"], group["weight_decay"]) == (wanted["base_lr"], wanted["weight_decay"])
    for group in muon.param_groups:
        group["momentum"] = 0.92
    tokens = torch.from_numpy(golden["train/tokens"]).long()
    losses = []
    for step, scale in enumerate(notes["train_lr_scales"]):
        for group in muon.param_groups + adam.param_groups:
            group["lr"] = group["peak_lr"] * scale
        model.zero_grad()
        loss = model(tokens[step, :-1].view(8, 64), tokens[step, 1:].view(8, 64))
        loss.backward()
        if step == 0:
            for name, weight in model.named_parameters():
                if f"train/grad_step0/{name}" in golden:
                    close(weight.grad, golden[f"train/grad_step0/{name}"], 1e-4)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        muon.step()
        adam.step()
        losses.append(loss.item())
    assert losses == pytest.approx(golden["train/ns_f32/losses"], abs=5e-5)
    for name, weight in model.named_parameters():
        if f"train/ns_f32/final_param/{name}" in golden:
            close(weight, golden[f"train/ns_f32/final_param/{name}"], 1e-3)
