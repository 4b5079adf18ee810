"""The model against the numbers of the original scripts, and the properties any language model must have."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from codec.decoder import QuantizedTensor
from codec.errors import InputError, UsageError
from tests.trainer.processors import FEW_OPERATIONS
from tests.trainer.shrunk import (
    SEEDS,
    golden_arrays,
    golden_config,
    golden_model,
    golden_state,
    small_preset,
)
from trainer.model.gpt import GPT, GPTConfig, rotary_tables, rotate
from trainer.presets.catalog import PRESETS
from trainer.presets.published_layouts import (
    EMBEDDINGS,
    HIDDEN,
    guesses,
    join_banks,
    read_config,
    split_banks,
)

SMALL = {"vocab_size": 50, "seq_len": 16, "layers": 3, "dim": 32, "heads": 4, "kv_heads": 2, "mlp_hidden": 48}
FILES = [(seed, "model") for seed in SEEDS[:3]] + [(1716, "model_looped"), (1716, "model_not_looped")]
BUCKETS = (97, 128, 1536, 2048, 2816, 3072, 4096, 16384)


@pytest.fixture(scope="module", params=SEEDS)
def seed(request):
    return request.param


@pytest.fixture(scope="module")
def modules(shared, seed):
    arrays = golden_arrays(shared, seed, "modules")
    return {name: torch.from_numpy(array) for name, array in arrays.items() if name != "config"}


@pytest.fixture(scope="module")
def original(shared, seed):
    return golden_model(shared, seed)


def close(ours, theirs, tolerance=1e-4):
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


@pytest.mark.parametrize(("seed", "file"), FILES)
@torch.no_grad()
def test_logits_and_loss_are_the_originals(shared, seed, file):
    golden, model = golden_arrays(shared, seed, file), golden_model(shared, seed)
    model.looping = file != "model_not_looped"
    ids, targets = (torch.from_numpy(golden[name]).long() for name in ("input_ids", "target_ids"))
    close(model.logits(ids), golden["logits"])
    assert abs(model(ids, targets).item() - golden["loss"]) < 1e-5


@pytest.mark.parametrize(("seed", "file"), FILES)
@torch.no_grad()
def test_every_layer_gives_what_the_original_gave(shared, seed, file):
    golden, model = golden_arrays(shared, seed, file), golden_model(shared, seed)
    model.looping = file != "model_not_looped"
    calls, parts = [], {}

    def block_called(block, inputs, output):
        calls.append((list(model.blocks).index(block), inputs, output[0]))

    for block in model.blocks:
        block.register_forward_hook(block_called)
    for place, block in (("first", model.blocks[0]), ("last", model.blocks[-1])):
        for kind in ("attn", "mlp"):
            getattr(block, kind).register_forward_hook(
                lambda _, inputs, output, name=f"{kind}_{place}": parts.update(
                    {f"{name}_in": inputs[0], f"{name}_out": output[0] if isinstance(output, tuple) else output}
                )
            )
    model.hidden(torch.from_numpy(golden["input_ids"]).long())
    assert [index for index, *_ in calls] == json.loads(str(golden["config"]))["block_call_order"]
    close(calls[0][1][0][0, :16], golden["x0"])
    for (_, _, output), wanted in zip(calls, golden["block_outputs"], strict=True):
        close(output[0, :8], wanted)
    assert len(parts) == 8
    for name, found in parts.items():
        close(found[0, :16], golden[name])


@pytest.mark.parametrize("buckets", BUCKETS)
def test_bigram_slots_are_the_originals(modules, buckets):
    bigram = GPT(GPTConfig(**SMALL, bigram_buckets=buckets, bigram_dim=2)).bigram
    assert torch.equal(bigram.slots(modules["bigram/token_ids"].long()).int(), modules[f"bigram/buckets_{buckets}"])
    if buckets == 16384:  # ids up to 65535 wrap around in 32 bits
        edge = bigram.slots(modules["bigram/edge_token_ids"].long()).int()
        assert torch.equal(edge, modules["bigram/edge_buckets_16384"])


def test_bigram_hashes_by_hand():
    """Ids 3, 5, 7 in a table of 11 rows: rows 0..9 by the formulas in the docstrings, row 10 for what has no pair."""
    ids = torch.tensor([[3, 5, 7]])
    bigram = GPT(GPTConfig(**SMALL, bigram_buckets=11, bigram_dim=2, bigram_hash="poly31")).bigram
    assert bigram.slots(ids).tolist() == [[10, (3 * 31 + 5) % 10, (5 * 31 + 7) % 10]]
    bigram = GPT(GPTConfig(**SMALL, bigram_buckets=11, bigram_dim=2, bigram_hash="xor3")).bigram
    pair, triple = 36313 * 5 ^ 27191 * 3, 36313 * 7 ^ 27191 * 5 ^ 51497 * 3
    assert bigram.slots(ids).tolist()[0][1] == pair % 10
    assert bigram.triples(ids).tolist() == [[10, 10, triple % 10]]
    assert bigram.triples(ids[:, :1]).tolist() == [[10]]


@torch.no_grad()
def test_bigram_vectors_are_the_originals(modules, original):
    bigram = original.bigram
    for name, weight in bigram.named_parameters():
        weight.copy_(modules[f"bigram/bigram.{name}"])
    close(bigram(modules["bigram/forward_ids"].long()), modules["bigram/forward_out"], FEW_OPERATIONS)


@torch.no_grad()
def test_smear_is_the_originals(seed, modules):
    """Through the whole entrance of a model whose 32 tokens have the vectors of the golden input."""
    vectors = modules["smear/in"]
    model = GPT(replace(golden_config(seed), bigram_buckets=0, vocab_size=32))
    if seed == 1716:
        model.smear_gate.weight.copy_(modules["smear/smear_gate.weight"])
        model.smear_lambda.copy_(modules["smear/smear_lambda"])
        model.tok_emb.weight.copy_(vectors.flatten(0, 1))
        close(model.embedded(torch.arange(32).view(2, 16)), modules["smear/out"], FEW_OPERATIONS)
    else:
        model.smear.gate.copy_(modules["smear/gate"])
        close(vectors + model.smear(vectors), modules["smear/out"], FEW_OPERATIONS)


def test_rotation_is_the_originals(seed, modules):
    by_time = (1, 2) if seed == 162 else (0, 0)  # 162 keeps heads before time
    rotation = rotary_tables(12, golden_config(seed), torch.device("cpu"))
    close(rotation[0][:, 0], modules["rotary/cos"], FEW_OPERATIONS)
    close(rotation[1][:, 0], modules["rotary/sin"], FEW_OPERATIONS)
    ours = rotate(modules["rotary/in"].transpose(*by_time), rotation).transpose(*by_time)
    close(ours, modules["rotary/out"], FEW_OPERATIONS)


@pytest.mark.parametrize("length", [1024, 2048, 4096])
def test_rotary_tables_hold_at_full_length(seed, modules, length):
    """Angles of thousands of radians: 3.0e-5 to 1.15e-4 by the kind of processor; one position off is 1 and more."""
    positions = modules["rotary/full_positions"]
    positions = positions[positions < length]
    cos, sin = rotary_tables(length, PRESETS[f"pr{seed}"].model, torch.device("cpu"))
    close(cos[positions, 0], modules[f"rotary/full_cos_T{length}"], 5e-4)
    close(sin[positions, 0], modules[f"rotary/full_sin_T{length}"], 5e-4)


@torch.no_grad()
def test_blocks_are_the_originals(seed, original, modules):
    rotation = rotary_tables(20, original.config, torch.device("cpu"))
    for layer in (0, original.config.layers - 1):
        added = None
        if f"block/value_embedding_{layer}" in modules:
            added = original.added_values(modules[f"block/ids_{layer}"].long())[layer]
            close(added, modules[f"block/value_embedding_{layer}"])
        ours, _ = original.blocks[layer](modules["block/x"], modules["block/x0"], rotation, added, None)
        close(ours, modules[f"block/out_{layer}"])
    if seed in (1176, 1716):
        close(
            original.blocks[0].attn.without_own_value(modules["xsa/y"], modules["xsa/v"]),
            modules["xsa/out"],
            FEW_OPERATIONS,
        )


MANIFESTS = [
    ("pr162", {}, "162/manifest_full", 22_368_841),
    ("pr339", {}, "339/manifest_full", 27_092_058),
    ("pr339", {"bigram_buckets": 2048}, "339/manifest_full_bigram2048", 26_829_914),
    ("pr1176", {}, "1176/manifest_full", 27_038_812),
    ("pr1716", {}, "1716/manifest_full", 36_486_278),
]


@pytest.mark.parametrize(("preset", "change", "file", "count"), MANIFESTS)
def test_presets_have_the_originals_tensors(shared, preset, change, file, count):
    """Names, shapes, and which tensors the originals keep in bfloat16."""
    manifest = json.loads((shared / f"data/golden/{file}.json").read_text())
    with torch.device("meta"):
        model = GPT(replace(PRESETS[preset].model, **change))
    assert sum(weight.numel() for weight in model.parameters()) == count == manifest["param_count"]
    ours = {name: np.broadcast_to(np.int8(0), tensor.shape) for name, tensor in model.state_dict().items()}
    if preset == "pr1176":
        ours = join_banks(ours)
    assert {
        name: (list(array.shape), "bfloat16" if name in EMBEDDINGS else "float32") for name, array in ours.items()
    } == {name: (entry["shape"], entry["dtype_runtime"]) for name, entry in manifest["state_dict"].items()}
    buffers = {name for name, entry in manifest["state_dict"].items() if entry["kind"] == "buffer"}
    assert {name for name, _ in model.named_buffers()} == buffers


def test_banks_are_only_another_layout(shared):
    state = golden_state(shared, 1176)
    back = join_banks(split_banks(state))
    assert back.keys() == state.keys()
    assert all(back[name].tobytes() == state[name].tobytes() for name in state)
    layers = [split_banks(state)[f"blocks.{layer}.attn.proj.weight"] for layer in range(6)]
    assert np.array_equal(np.stack(layers), state["qo_bank"][6:])
    split = split_banks(state)
    del split["blocks.3.mlp.fc.weight"]
    with pytest.raises(InputError, match=r"blocks.3.mlp.fc.weight: is missing, the bank `mlp_up_bank` needs it"):
        join_banks(split)
    whole = QuantizedTensor(np.zeros((12, 4, 4), np.int8), np.ones(1, np.float32))
    with pytest.raises(InputError, match="qo_bank: is quantized as a whole, its matrices cannot be told apart"):
        split_banks({"qo_bank": whole})
    with pytest.raises(InputError, match="need 2 x layers"):
        split_banks({"kv_bank": np.zeros((5, 2, 2))})


def shapes_of(config):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()}


STARTS = ("qk_gain_init", "bigram_gain_init", "backout_init", "embed_std")  # of no use to a trained model


@pytest.mark.parametrize("name", ["baseline", "pr162", "pr198", "pr339", "pr549", "pr1176", "pr1493", "pr1716"])
def test_shapes_tell_the_config(name):
    """Full-size files of the known systems are told apart; 198 is no 162, and 549 no 1176."""
    config = PRESETS[name].model
    assert read_config(shapes_of(config)) == config
    smaller = replace(config, vocab_size=320, layers=config.layers - 1, xsa_layers=min(config.xsa_layers, 10))
    stated = {**smaller.to_dict(), "seq_len": 256}
    found = read_config(shapes_of(smaller), stated={key: stated[key] for key in (*HIDDEN, *STARTS)})
    assert found == replace(smaller, seq_len=256)
    assert guesses(found, HIDDEN) == {}
    assert guesses(found, ["seq_len", "activation"]).keys() >= {"rope_dims", "xsa_layers"}


def test_a_shape_that_contradicts_what_is_stated_is_refused():
    shapes = shapes_of(PRESETS["pr162"].model)
    with pytest.raises(InputError, match="is of a model with layers 9, 11 is stated"):
        read_config(shapes, stated={"layers": 11})
    with pytest.raises(UsageError, match="unknown key `ropedims`"):
        read_config(shapes, stated={"ropedims": 16})


def test_strange_shapes_are_refused():
    shapes = shapes_of(PRESETS["pr339"].model)
    with pytest.raises(InputError, match=r"smear.gate: the file has shape 511, the model shape 512"):
        read_config({**shapes, "smear.gate": (511,)})
    with pytest.raises(InputError, match=r"lm_head.weight: the file has shape 1024x512, the model no such tensor"):
        read_config({**shapes, "lm_head.weight": (1024, 512)})
    with pytest.raises(InputError, match="are not those of a known system"):
        read_config({"wte.weight": (50257, 768)})


CONFIGS = st.builds(
    dict,
    layers=st.integers(2, 4),
    kv_heads=st.sampled_from([1, 2, 4]),
    activation=st.sampled_from(["relu2", "leaky2"]),
    bigram_buckets=st.sampled_from([0, 37]),
    bigram_hash=st.sampled_from(["xor", "xor3", "poly31"]),
    smear=st.sampled_from(["", "vector", "gated"]),
    smear_bos_mask=st.booleans(),
    rope_dims=st.sampled_from([0, 2, 4]),
    rope_train_len=st.sampled_from([0, 8]),
    xsa_layers=st.integers(0, 2),
    ln_scale=st.booleans(),
    value_residual=st.booleans(),
    value_embed_dim=st.sampled_from([0, 6]),
    attn_gate=st.booleans(),
    parallel_layers=st.integers(0, 2),
    gated_skips=st.booleans(),
    loops=st.integers(0, 2),
    backout=st.booleans(),
    logit_temperature=st.booleans(),
)


@settings(max_examples=40)
@given(CONFIGS)
def test_what_a_shape_shows_is_never_guessed(flags):
    """Any model of the class: its config comes back when all is stated that `guesses` names for it."""
    flags = {**flags, "value_embed_layers": (0, 1) if flags["value_embed_dim"] else 0, "loop_last": 1}
    config = GPTConfig(vocab_size=30, seq_len=12, dim=32, heads=4, mlp_hidden=24, bigram_dim=7, **flags)
    values = config.to_dict()
    stated = {name: values[name] for name in HIDDEN}
    assert read_config(shapes_of(config), stated=values) == config, "stating all of it contradicts nothing"
    found = read_config(shapes_of(config), stated=stated)
    shown = {name: value for name, value in found.to_dict().items() if name not in STARTS}
    if not config.bigram_buckets:
        shown["bigram_dim"] = 7
    assert shown == {name: value for name, value in values.items() if name not in STARTS}


@torch.no_grad()
def test_value_embedding_layers_can_be_listed():
    """A list of the last layers is their count; any other layer is the one whose scale alone is not zero."""
    torch.manual_seed(0)
    sizes = {**SMALL, "layers": 4, "value_embed_dim": 6, "xsa_layers": 0}
    everywhere = GPT(GPTConfig(**sizes, value_embed_layers=4))
    for weight in everywhere.parameters():
        weight.add_(0.3 * torch.randn(weight.shape))
    ids, state = torch.randint(0, 50, (2, 16)), everywhere.state_dict()
    for layers in ((0,), (1, 2), (2, 3)):
        listed = GPT(GPTConfig.from_dict({**everywhere.config.to_dict(), "value_embed_layers": [*layers]}))
        own = {f"ve_layer_scales.{place}": 1 + 0 * state["ve_layer_scales.0"] for place in range(len(layers))}
        for layer in range(4):
            everywhere.ve_layer_scales[layer].fill_(float(layer in layers))
        listed.load_state_dict({**{n: t for n, t in state.items() if not n.startswith("ve_layer_scales")}, **own})
        assert torch.equal(listed.logits(ids), everywhere.logits(ids))
        assert listed.config.to_dict()["value_embed_layers"] == [*layers]
    last = GPT(GPTConfig(**sizes, value_embed_layers=2))
    last.load_state_dict(listed.state_dict())
    assert torch.equal(last.logits(ids), listed.logits(ids))
    for wrong in ([1, 1], [2, 1], [0, 4], [], -1, 5, [0.5], "9"):
        with pytest.raises(UsageError, match="value_embed"):
            GPTConfig.from_dict({**listed.config.to_dict(), "value_embed_layers": wrong})


@settings(max_examples=60)
@given(CONFIGS, st.integers(0, 15), st.booleans(), st.integers(0, 99))
@torch.no_grad()
def test_the_future_does_not_matter(flags, position, looping, seed):
    """Logits before a changed token stay equal bit for bit, those at it change; for every combination of switches."""
    flags = {**flags, "value_embed_layers": 2 if flags["value_embed_dim"] else 0, "loop_last": 1}
    model = GPT(GPTConfig(**{**SMALL, **flags}))
    model.looping = looping
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():  # gates and scales that start at zero would hide what they let through
        weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    ids = torch.randint(0, 50, (2, 16), generator=generator)
    changed = ids.clone()
    changed[:, position] = (changed[:, position] + 1) % 50
    before, after = model.logits(ids), model.logits(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.equal(before[:, position], after[:, position])
    assert before.abs().max() <= 30


@torch.no_grad()
def test_the_smear_can_stop_at_documents():
    model = GPT(GPTConfig(**SMALL, smear="vector", smear_bos_mask=True))
    ids = torch.tensor([[7, 1, 9]])  # 1 begins a document
    alone = model.embedded(ids[:, 1:])
    assert torch.equal(model.embedded(ids)[:, 1:], alone)
    model = GPT(GPTConfig(**SMALL, smear="vector"))
    assert not torch.equal(model.embedded(ids)[:, 1:], model.embedded(ids[:, 1:]))


@pytest.mark.parametrize("name", ["cpu-demo", "pr162", "pr339", "pr1176", "pr1716"])
def test_the_stream_follows_the_embeddings_into_bfloat16(name):
    """As on a GPU: tables in bfloat16, the rest float32 under autocast; every gradient in its weight's dtype."""
    torch.manual_seed(0)
    model = GPT(small_preset(name).model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    ids = torch.randint(0, 64, (2, 16))
    wanted = model.logits(ids).detach()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.bfloat16()
    assert {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16} <= set(EMBEDDINGS)
    seen = set()
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.add(output[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.logits(ids)
    assert seen == {torch.bfloat16}
    assert logits.dtype == torch.float32
    assert (logits - wanted).abs().mean() < 0.03 * wanted.abs().mean()
    logits.square().mean().backward()
    assert all(weight.grad.dtype == weight.dtype for weight in model.parameters())


def test_config_survives_json():
    for preset in PRESETS.values():
        assert GPTConfig.from_dict(json.loads(json.dumps(preset.model.to_dict()))) == preset.model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kv_head": 2}, "did you mean `kv_heads`"),
        ({"layers": "9"}, "`layers` is '9', it must be of type int"),
        ({"smear": 1}, "must be of type str"),
        ({"smear": "both"}, "smear is `both`, it must be one of"),
        ({"heads": 3}, "do not fit dim 32"),
        ({"layers": 1}, "at least 2"),
        ({"bigram_buckets": 1}, "0 \\(none\\) or at least 2"),
        ({"rope_dims": 10}, "must be even and at most 8"),
        ({"xsa_layers": 4}, "xsa_layers is 4, the model has 3 layers"),
        ({"loops": 1, "loop_first": 2, "loop_last": 3}, "layers 2 to 3 of 3 cannot be looped"),
        ({"value_embed_dim": 8}, "go together"),
        ({"dim": 8, "attn_gate": True}, "gates read 12 channels, dim is 8"),
    ],
)
def test_bad_configs_are_explained(change, words):
    with pytest.raises(UsageError, match=words):
        GPTConfig.from_dict({**SMALL, **change})


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match="mlp_hidden"):
        GPTConfig.from_dict({name: value for name, value in SMALL.items() if name != "mlp_hidden"})
