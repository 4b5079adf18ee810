"""Starting weights of every preset: what is zero, what is orthogonal, a loss of ln V, and that nothing is stuck."""

import math
from dataclasses import replace

import pytest
import torch

from tests.trainer.shrunk import small_preset
from trainer.model.gpt import GPT, GPTConfig
from trainer.model.init import initialize
from trainer.optim.muon import optimizers
from trainer.presets.catalog import PRESETS

NAMES = sorted(PRESETS)


def fresh(config, seed=0):
    model = GPT(config)
    initialize(model, seed)
    return model


def close(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_fresh_model_knows_nothing(name):
    """Zero output projections leave norm(embedding), whose products with 0.005-sized rows are near zero."""
    config = small_preset(name).model
    ids = torch.randint(0, config.vocab_size, (64, config.seq_len + 1), generator=torch.Generator().manual_seed(0))
    for looping in (False, True):
        model = fresh(config, seed=3)
        model.looping = looping
        assert abs(model(ids[:, :-1], ids[:, 1:]).item() - math.log(config.vocab_size)) < 0.01


@pytest.mark.parametrize("name", ["cpu-demo", "pr162", "pr339", "pr1176", "pr1716"])
@torch.no_grad()
def test_starting_weights(name):
    config = replace(PRESETS[name].model, vocab_size=1024, layers=7, xsa_layers=0)
    model, dim = fresh(config), config.dim
    assert model.tok_emb.weight.std().item() == pytest.approx(0.005, rel=0.02)
    query = model.blocks[1].attn.c_q.weight
    close(query @ query.T, torch.eye(dim))
    up = model.blocks[1].mlp.fc.weight
    close(up.T @ up, torch.eye(dim))
    zero = {name for name, weight in model.named_parameters() if not weight.any()}
    wanted = {f"blocks.{layer}.{part}.proj.weight" for layer in range(7) for part in ("attn", "mlp")}
    wanted |= {f"blocks.{layer}.attn.attn_gate_proj.weight" for layer in range(7) if config.attn_gate}
    wanted |= {"skip_gates"} if config.gated_skips else set()
    wanted |= {"smear.gate"} if config.smear == "vector" else {"smear_gate.weight", "smear_lambda"}
    assert zero == wanted | {"bigram.embed.weight"}
    projection = model.bigram.proj.weight  # as wide as the model, so its columns can be orthogonal
    gain = {"cpu-demo": 1 / math.sqrt(8), "pr162": 1 / math.sqrt(18), "pr339": 1 / math.sqrt(22)}.get(name, 1.0)
    close(projection.T @ projection, gain**2 * torch.eye(config.bigram_dim))
    if config.value_embed_layers:
        assert model.ve_shared.embed.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_narrow_layers_keep_torchs_range():
    config = GPTConfig(vocab_size=64, seq_len=16, layers=2, dim=32, heads=2, kv_heads=1, mlp_hidden=64)
    weight = fresh(config).blocks[0].attn.c_q.weight
    assert 0.9 / math.sqrt(32) < weight.abs().max().item() <= 1 / math.sqrt(32)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name):
    config = small_preset(name).model
    first, again, other = fresh(config), fresh(config), fresh(config, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.tok_emb.weight, other.tok_emb.weight)
    assert not torch.equal(first.blocks[0].attn.c_q.weight, other.blocks[0].attn.c_q.weight)


def still_after_twenty_steps(preset):
    """Names of the tensors that training left as they were."""
    model = fresh(preset.model)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    both = optimizers(model, preset.train)
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        model.looping = step >= 10
        ids = torch.randint(0, preset.model.vocab_size, (4, preset.model.seq_len + 1), generator=generator)
        for optimizer in both:
            optimizer.zero_grad()
        model(ids[:, :-1], ids[:, 1:]).backward()
        for optimizer in both:
            optimizer.step()
    return {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_move_every_tensor(name):
    """Without weight decay, so that decay cannot pass for learning.

    The one exception is pull request 1716, whose bigram table no optimizer has: it stays zero, and what only reads
    it never gets a gradient.
    """
    preset = small_preset(name)
    train = replace(preset.train, matrix_decay=0.0, embed_decay=0.0, scalar_decay=0.0)
    dead = {"bigram.embed.weight", "bigram.proj.weight", "bigram.scale"} if name == "pr1716" else set()
    assert still_after_twenty_steps(replace(preset, train=train)) == dead
    if dead:
        assert still_after_twenty_steps(replace(preset, train=replace(train, train_bigram=True))) == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_but_1716s_table_moves(name):
    assert still_after_twenty_steps(small_preset(name)) == ({"bigram.embed.weight"} if name == "pr1716" else set())
