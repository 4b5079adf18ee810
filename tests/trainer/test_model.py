"""The model against the numbers of the original script, and the properties any language model must have."""

import json
import math

import numpy as np
import pytest
import torch

from codec.errors import UsageError
from trainer.model import GPT, GPTConfig, rotary_tables, rotate
from trainer.presets import PRESETS
from trainer.state import initialize

SHRUNK = GPTConfig(
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
SMALL = {"vocab_size": 50, "seq_len": 16, "layers": 3, "dim": 32, "heads": 4, "kv_heads": 2, "mlp_hidden": 48}


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "data/golden/162/model.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays if name != "config"}


@pytest.fixture(scope="module")
def modules(shared):
    with np.load(shared / "data/golden/162/modules.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays if name != "config"}


@pytest.fixture(scope="module")
def original(golden):
    model = GPT(SHRUNK)
    model.load_state_dict({name.removeprefix("state/"): value for name, value in golden.items() if "state/" in name})
    return model.eval()


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


@torch.no_grad()
def test_logits_and_loss_are_the_originals(original, golden):
    ids, targets = golden["input_ids"].long(), golden["target_ids"].long()
    close(original.logits(ids), golden["logits"])
    assert abs(original(ids, targets).item() - golden["loss"].item()) < 1e-5


@torch.no_grad()
def test_every_block_gives_what_the_original_gave(original, golden):
    seen = {}
    for index, block in enumerate(original.blocks):
        block.register_forward_hook(lambda module, inputs, output, index=index: seen.update({index: (inputs, output)}))
    original.hidden(golden["input_ids"].long())
    close(seen[0][0][0][0, :16], golden["x0"])
    for index, wanted in enumerate(golden["block_outputs"]):
        close(seen[index][1][0, :8], wanted)


@torch.no_grad()
def test_modules_are_the_originals(original, modules):
    close(original.bigram(modules["bigram/forward_ids"].long()), modules["bigram/forward_out"], 1e-6)
    close(original.smear(modules["smear/in"]), modules["smear/out"], 1e-6)
    cos, sin = rotary_tables(12, 16, 10_000.0, torch.device("cpu"))
    close(cos[:, 0], modules["rotary/cos"], 1e-6)
    close(rotate(modules["rotary/in"].transpose(1, 2), cos, sin).transpose(1, 2), modules["rotary/out"], 1e-6)
    cos, sin = rotary_tables(20, 16, 10_000.0, torch.device("cpu"))
    for index in (0, 4):
        close(original.blocks[index](modules["block/x"], modules["block/x0"], cos, sin), modules[f"block/out_{index}"])


def test_rotary_tables_hold_at_full_length(modules):
    for length in (1024, 2048, 4096):
        positions = modules["rotary/full_positions"]
        positions = positions[positions < length]
        cos, sin = rotary_tables(length, 64, 10_000.0, torch.device("cpu"))
        close(cos[positions, 0], modules[f"rotary/full_cos_T{length}"], 2e-4)
        close(sin[positions, 0], modules[f"rotary/full_sin_T{length}"], 2e-4)


@pytest.mark.parametrize("buckets", [97, 128, 1536, 2048, 2816, 3072, 4096, 16384])
def test_bigram_slots_are_the_originals(modules, buckets):
    bigram = GPT(GPTConfig(**SMALL, bigram_buckets=buckets, bigram_dim=2)).bigram
    assert torch.equal(bigram.slots(modules["bigram/token_ids"].long()).int(), modules[f"bigram/buckets_{buckets}"])
    if buckets == 16384:  # ids up to 65535 wrap around in 32 bits
        edge = bigram.slots(modules["bigram/edge_token_ids"].long()).int()
        assert torch.equal(edge, modules["bigram/edge_buckets_16384"])


def test_pr162_has_the_originals_tensors(shared):
    manifest = json.loads((shared / "data/golden/162/manifest_full.json").read_text())
    with torch.device("meta"):
        model = GPT(PRESETS["pr162"].model)
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == {name: entry["shape"] for name, entry in manifest["state_dict"].items()}
    assert sum(weight.numel() for weight in model.parameters()) == 22_368_841 == manifest["param_count"]


@pytest.mark.parametrize("smear", [False, True])
@pytest.mark.parametrize("buckets", [0, 37])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@torch.no_grad()
def test_the_future_does_not_matter(smear, buckets, kv_heads):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SMALL, "kv_heads": kv_heads}, smear=smear, bigram_buckets=buckets))
    ids = torch.randint(0, 50, (2, 16))
    before = model.logits(ids)
    for position in (0, 1, 7, 15):
        changed = ids.clone()
        changed[:, position] = (changed[:, position] + 1) % 50
        after = model.logits(changed)
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[:, position], after[:, position])


@pytest.mark.parametrize("name", ["tiny", "cpu-demo"])
@torch.no_grad()
def test_a_fresh_model_knows_nothing(name):
    config = PRESETS[name].model
    model = GPT(config)
    initialize(model, seed=3)
    ids = torch.randint(0, config.vocab_size, (2, config.seq_len + 1))
    assert abs(model(ids[:, :-1], ids[:, 1:]).item() - math.log(config.vocab_size)) < 0.01


@torch.no_grad()
def test_starting_weights():
    model = GPT(PRESETS["cpu-demo"].model)
    initialize(model, seed=0)
    assert model.tok_emb.weight.std().item() == pytest.approx(0.005, rel=0.02)
    block, query = model.blocks[1], model.blocks[1].attn.c_q.weight
    close(query @ query.T, torch.eye(128), 1e-5)
    assert not block.attn.proj.weight.any()
    assert not block.mlp.proj.weight.any()
    assert not model.bigram.embed.weight.any()
    projection = model.bigram.proj.weight  # 128 x 64: orthonormal columns times 1/sqrt(2 * 4 layers)
    close(projection.T @ projection, torch.eye(64) / 8, 1e-5)
    other = GPT(PRESETS["cpu-demo"].model)
    initialize(other, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_config_survives_json():
    config = PRESETS["pr162"].model
    assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kv_head": 2}, "did you mean `kv_heads`"),
        ({"layers": "9"}, "`layers` is '9', it must be of type int"),
        ({"smear": 1}, "must be of type bool"),
        ({"heads": 3}, "do not fit dim 32"),
        ({"layers": 1}, "at least 2"),
        ({"bigram_buckets": 1}, "0 \\(none\\) or at least 2"),
    ],
)
def test_bad_configs_are_explained(change, words):
    with pytest.raises(UsageError, match=words):
        GPTConfig.from_dict({**SMALL, **change})


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match="mlp_hidden"):
        GPTConfig.from_dict({name: value for name, value in SMALL.items() if name != "mlp_hidden"})
