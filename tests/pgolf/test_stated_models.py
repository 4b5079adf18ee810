# ruff: noqa: F401, F811 (fixtures of tests/verify are imported by name)
"""Checkpoints of other trainers, from file to verdict: what the model is must be stated, or is called a guess."""

import io
import json
import zlib
from dataclasses import replace

import pytest
import torch

from codec import decode, read_meta
from codec.storage.checkpoint import write_checkpoint
from pgolf.checkpoints import read_weights
from tests.verify.conftest import data, train_tokenizer
from trainer.model.gpt import GPT
from trainer.model.packed import load
from trainer.presets.catalog import PRESETS

SIZES = {"vocab_size": 300, "seq_len": 16, "layers": 6, "dim": 32, "heads": 2, "kv_heads": 1, "mlp_hidden": 48}
SMALL = {**SIZES, "bigram_buckets": 31, "bigram_dim": 8, "value_embed_dim": 8, "rope_dims": 8}


@pytest.fixture
def model():
    """One of pull request 549's shape, small; no shape tells it from 1176's."""
    torch.manual_seed(5)
    model = GPT(replace(PRESETS["pr549"].model, **SMALL)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    return model


@pytest.fixture
def file(model, tmp_path):
    """Its state dict as somebody's trainer saved it."""
    path = tmp_path / "last.pt"
    torch.save({"step": 9, "module": {f"_orig_mod.{name}": each for name, each in model.state_dict().items()}}, path)
    return path


def packed(pgolf, file, folder, *more):
    done = pgolf("pack", file, "--recipe", "pr162-small", "-o", folder, *more)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "warning" in line]
    return read_meta((folder / "model.bin").read_bytes()), warnings


def test_a_guess_is_called_one_and_may_be_wrong(pgolf, model, file, tmp_path):
    meta, warnings = packed(pgolf, file, tmp_path / "sub")
    assert len(warnings) == 1
    assert "the model is a guess, no shape shows activation leaky2, xsa_layers 6, rope_dims 16" in warnings[0]
    assert warnings[0].endswith("state them with --config FILE, --preset NAME or --set KEY=VALUE")
    assert meta["guessed"].keys() >= {"activation", "xsa_layers", "rope_dims", "seq_len", "value_embed_layers"}
    assert meta["config"].items() >= meta["guessed"].items()
    ids = torch.arange(32).reshape(2, 16)
    with torch.no_grad():
        own, other = model.logits(ids), load(tmp_path / "sub/model.bin").logits(ids)
    assert (other - own).abs().max() > 1


STATED = {
    name: getattr(replace(PRESETS["pr549"].model, **SMALL), name) for name in ("xsa_layers", "rope_dims", "seq_len")
}


@pytest.mark.parametrize("way", ["json", "toml", "preset and set", "set"])
def test_what_is_stated_is_no_guess(pgolf, model, file, tmp_path, way):
    """The packed script gives the float model's logits, up to what int8 rows lose."""
    config = {name: value for name, value in model.config.to_dict().items() if not name.endswith(("_init", "_std"))}
    if way == "json":
        (tmp_path / "model.json").write_text(json.dumps(config))
        more = ["--config", tmp_path / "model.json"]
    elif way == "toml":
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
        (tmp_path / "model.toml").write_text(f"version = 1\n[model]\n{lines}")
        more = ["--config", tmp_path / "model.toml"]
    elif way == "preset and set":
        more = ["--preset", "pr549", "--eval-only", "--set", "rope_dims=8", "--set", "seq_len=16"]
    else:
        more = [each for name, value in STATED.items() for each in ("--set", f"{name}={value}")]
    meta, warnings = packed(pgolf, file, tmp_path / "sub", *more)
    assert {name: meta["config"][name] for name in config} == config
    assert ("guessed" in meta, bool(warnings)) == (way == "set", way == "set")
    assert not meta.get("guessed", {}).keys() & STATED.keys()
    ids = torch.arange(32).reshape(2, 16)
    with torch.no_grad():
        own, other = model.logits(ids), load(tmp_path / "sub/model.bin").logits(ids)
    assert (other - own).abs().max() < 0.5


def test_contradictions_are_refused(pgolf, model, file, tmp_path):
    own = tmp_path / "own.safetensors"
    arrays = {name: each.numpy() for name, each in model.state_dict().items()}
    write_checkpoint(own, arrays, {"config": model.config.to_dict()})
    (tmp_path / "wrong.json").write_text('{"layers": 7}')
    for checkpoint, more, code, words in [
        (file, ("--config", tmp_path / "wrong.json"), 3, "last.pt: is of a model with layers 6, 7 is stated"),
        (
            file,
            ("--set", "value_embed_layers=1"),
            3,
            "ve_layer_scales.1: the file has shape 1, the model no such tensor",
        ),
        (file, ("--set", "xsa_layer=4"), 2, "there is no setting `xsa_layer`; did you mean `xsa_layers`?"),
        (file, ("--set", "steps=4"), 2, "there is no setting `steps`"),
        (file, ("--set", "xsa_layers=9"), 2, "xsa_layers is 9, the model has 6 layers"),
        (file, ("--preset", "pr594"), 2, "did you mean `pr549`?"),
        (own, ("--set", "xsa_layers=4"), 2, "states its model config itself; leave out --config, --preset and --set"),
    ]:
        done = pgolf("pack", checkpoint, "--recipe", "pr162-small", "-o", tmp_path / "sub", *more)
        assert (done.returncode, words in done.stderr, done.stderr.count("\n")) == (code, True, 1), done.stderr
        assert not (tmp_path / "sub").exists()


def test_listed_value_embedding_layers_come_from_the_command_line(pgolf, file, tmp_path):
    meta, _ = packed(pgolf, file, tmp_path / "sub", "--set", "value_embed_layers=1,4")
    assert meta["config"]["value_embed_layers"] == [1, 4]
    again = pgolf("verify", tmp_path / "sub", "--data", tmp_path)  # no data: but it is read
    assert again.returncode == 3


@pytest.mark.slow
def test_verify_says_that_the_model_is_a_guess(pgolf, model, file, data, tmp_path):
    """Float weights are read in any form that pack reads; a config that differs from the artifact's is refused."""
    limits = ("--data", data, "--limit-tokens", 40, "--threads", 1)
    packed(pgolf, file, tmp_path / "sub", "--set", "seq_len=16")
    done = pgolf("verify", tmp_path / "sub", *limits, "--checkpoint", file, "--json")
    found = json.loads(done.stdout)
    assert found["guessed"]["xsa_layers"] == 6
    assert "warning, the model is a guess" in done.stderr
    assert "every score here is that of the guess" in done.stderr
    assert found["float_bpb"] == pytest.approx(found["scores"][0]["bpb"], abs=0.05)
    own = tmp_path / "own.safetensors"
    write_checkpoint(
        own, {name: each.numpy() for name, each in model.state_dict().items()}, {"config": model.config.to_dict()}
    )
    done = pgolf("verify", tmp_path / "sub", *limits, "--checkpoint", own)
    assert done.returncode == 3
    assert "own.safetensors: is of a model with rope_dims 8, the artifact's has 16; pack it again" in done.stderr
    packed(pgolf, own, tmp_path / "sub")
    done = pgolf("verify", tmp_path / "sub", *limits, "--checkpoint", own, "--json")
    assert (json.loads(done.stdout)["guessed"], "guess" in done.stderr) == ({}, False)


@pytest.mark.slow
def test_verify_takes_a_quantized_file_as_checkpoint(pgolf, model, data, tmp_path):
    """What `--recipe stored` packs scores as the file's own levels do, to the last digit."""
    quantized, scales, plain = {}, {}, {}
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2:
            scales[name] = (tensor.abs().amax(1) / 127).half()
            quantized[name] = (tensor / scales[name].float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        else:
            plain[name] = tensor
    content = {"quantized": quantized, "scales": scales, "passthrough": plain, "dtypes": {}}
    buffer = io.BytesIO()
    torch.save({"__quant_format__": "int8_clean_per_row_v1", **content}, buffer)
    (tmp_path / "final.ptz").write_bytes(zlib.compress(buffer.getvalue()))
    stated = ("--preset", "pr549", "--eval-only", "--set", "seq_len=16", "--set", "rope_dims=8")
    done = pgolf("pack", tmp_path / "final.ptz", "--recipe", "stored", "-o", tmp_path / "sub", *stated)
    assert done.returncode == 0, done.stderr
    limits = ("--data", data, "--limit-tokens", 40, "--threads", 1)
    done = pgolf("verify", tmp_path / "sub", *limits, "--checkpoint", tmp_path / "final.ptz", "--json")
    found = json.loads(done.stdout)
    assert found["float_bpb"] == found["scores"][0]["bpb"]


def test_a_script_that_cannot_load_its_artifact_is_not_handed_out(pgolf, model, tmp_path):
    """The config is another model's: before, `pack` was content."""
    wrong = replace(model.config, layers=5)
    arrays = {name: each.numpy() for name, each in model.state_dict().items()}
    write_checkpoint(tmp_path / "m.safetensors", arrays, {"config": wrong.to_dict()})
    done = pgolf("pack", tmp_path / "m.safetensors", "--recipe", "pr162-small", "-o", tmp_path / "sub")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "cannot load the artifact that was packed with it (does not hold the tensors" in done.stderr
    assert not (tmp_path / "sub").exists()


def test_every_case_is_read_as_without_its_wrapper(pgolf, shared, tmp_path):
    folder, states = shared / "cases/checkpoints", {}
    for file in sorted(folder.glob("*_*.*")):
        if file.name != "nanogpt_tied.pt":
            states[file.name] = {name: each.tobytes() for name, each in read_weights(file).tensors.items()}
    assert len(states) == 5
    first = states["nest_net.pt"]
    assert all(state == first for state in states.values())
    assert not any("_orig_mod" in name or name.startswith(("module", "_fsdp")) for name in first)
    packed(pgolf, folder / "pre_avgmodel.pt", tmp_path / "sub")
    assert decode((tmp_path / "sub/model.bin").read_bytes()).keys() == first.keys()


def test_a_tied_copy_is_no_weight(pgolf, tmp_path):
    torch.manual_seed(0)
    table, other = torch.randn(70, 24), torch.randn(24, 24)
    torch.save({"wte.weight": table, "h.weight": other, "lm_head.weight": table.clone()}, tmp_path / "tied.pt")
    torch.save({"wte.weight": table, "h.weight": other}, tmp_path / "alone.pt")
    found = {}
    for name in ("tied", "alone"):
        found[name] = json.loads(pgolf("measure", tmp_path / f"{name}.pt", "--json").stdout)
        assert json.loads(pgolf("inspect", tmp_path / f"{name}.pt", "--json").stdout)["checkpoint"]["weights"] == 2256
    assert found["tied"]["weights"] == found["alone"]["weights"] == 2256
    tied, alone = (found[name]["recipes"][0]["bits_per_weight"] for name in ("tied", "alone"))
    assert tied == pytest.approx(alone, rel=0.01)
