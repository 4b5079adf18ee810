"""codec/model_file.py: any safetensors file there and back; what passes through is bit-equal, under its own dtype."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.decoder import read_meta
from codec.encoder import encode
from codec.errors import CodecError, LimitError, UsageError
from codec.model_file import SAFETENSORS, decode_checkpoint, encode_checkpoint
from codec.quantization.recipe import Recipe, Rule
from codec.storage.atomic_files import write_bytes

MIXED = Recipe(
    name="mixed",
    about="",
    coder="zstd-22",
    rules=(
        Rule.of(treatment="float16", max_weights=300),
        Rule.of(treatment="float32", names=("*exact*",)),
        Rule.of(treatment="int6"),
    ),
)


def tensors():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "attn.weight": random(48, 60).bfloat16(),
        "exact.weight": random(40, 50).bfloat16(),
        "exact.single": random(40, 50),
        "half.weight": random(48, 60).half(),
        "norm.bias": random(40).bfloat16(),
        "norm.half": random(40).half(),
        "norm.single": random(40),
        "extreme": torch.tensor([1e38, -3e-39, 0.0, -0.0]).bfloat16(),
        "eight": random(30).to(torch.float8_e4m3fn),
        "position_ids": torch.arange(50),
        "words": torch.arange(6).to(torch.uint16),
        "mask": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "nothing": torch.zeros(0, 3, dtype=torch.bfloat16),
    }


QUANTIZED = ("attn.weight", "half.weight")
ROUNDED = ("norm.single",)  # float32 that the recipe makes float16


@pytest.fixture
def checkpoint(tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors", {"format": "pt", "made": "here"})
    return tmp_path / "model.safetensors"


def there_and_back(checkpoint, encoded):
    write_bytes(checkpoint.with_name("m.pga"), encoded.artifact)
    decode_checkpoint(checkpoint.with_name("m.pga")).write(checkpoint.with_name("back.safetensors"))
    return load_file(checkpoint.with_name("back.safetensors"))


@pytest.mark.parametrize("size", [{}, {"bits_per_weight": 11.0}, {"artifact_bytes": 13_700}])
def test_what_passes_through_is_bit_equal_under_its_own_dtype(checkpoint, size):
    encoded = encode_checkpoint(checkpoint, MIXED, **size)
    back, exact = there_and_back(checkpoint, encoded), tensors()
    assert set(encoded.passed) == exact.keys() - {*QUANTIZED, *ROUNDED}
    assert back.keys() == exact.keys()
    for name, tensor in exact.items():
        if name in encoded.passed:
            assert back[name].dtype == tensor.dtype, name
            assert torch.equal(back[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)), name
        else:
            assert back[name].dtype == torch.float32
            error = (back[name] - tensor.float()).square().mean() / tensor.float().square().mean()
            assert error < (1e-6 if name in ROUNDED else 0.02), name
    if size:
        assert 0 <= (encoded.fitted.limit - len(encoded.artifact)) < 100
        assert encoded.bits_per_weight == pytest.approx(8 * len(encoded.artifact) / encoded.weights)


def test_metadata_come_back_and_the_recipe_is_told(checkpoint):
    there_and_back(checkpoint, encode_checkpoint(checkpoint, MIXED))
    decoded = decode_checkpoint(checkpoint.with_name("m.pga"))
    assert decoded.metadata == {"format": "pt", "made": "here"}
    assert decoded.meta == {"recipe": "mixed"}
    assert decoded.values["norm.bias"].dtype == np.float32


def test_equal_input_gives_equal_bytes_also_in_shards(checkpoint, tmp_path):
    one, two = tensors(), {}
    for name in ("attn.weight", "norm.bias"):
        two[name] = one.pop(name)
    folder = tmp_path / "shards"
    folder.mkdir()
    for file, part in (("a.safetensors", one), ("b.safetensors", two)):
        save_file(part, folder / file, {"format": "pt", "made": "here"})
    places = dict.fromkeys(one, "a.safetensors") | dict.fromkeys(two, "b.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    blobs = {encode_checkpoint(path, MIXED).artifact for path in (checkpoint, folder, checkpoint)}
    assert len(blobs) == 1


def test_the_default_recipe_needs_no_calibration(checkpoint):
    encoded = encode_checkpoint(checkpoint, bits_per_weight=11)
    assert any("has no calibration" in note for note in encoded.notes)
    assert {"norm.bias", "extreme", "words"} <= set(encoded.passed)
    assert torch.equal(there_and_back(checkpoint, encoded)["extreme"], tensors()["extreme"])


def test_two_sizes_and_too_small_a_size_are_one_sentence(checkpoint):
    with pytest.raises(UsageError, match="are two sizes"):
        encode_checkpoint(checkpoint, MIXED, artifact_bytes=1, bits_per_weight=1)
    with pytest.raises(LimitError, match="over its limit of 1,000"):
        encode_checkpoint(checkpoint, MIXED, artifact_bytes=1000)


@pytest.mark.parametrize(
    "notes",
    [
        {"dtypes": {"<f4": "BF16"}},
        {"dtypes": {"<f4": "nonsense"}},
        {"dtypes": {"<f4": 1}},
        {"dtypes": []},
        {"metadata": {"format": {}}},
        [],
    ],
)
def test_forged_dtypes_are_a_codec_error(tmp_path, notes):
    (tmp_path / "m.pga").write_bytes(encode({"w": np.ones(3, np.float32)}, {SAFETENSORS: notes}))
    with pytest.raises(CodecError, match=r"m\.pga"):
        decode_checkpoint(tmp_path / "m.pga")


def test_what_a_notebook_shows(checkpoint):
    encoded = replace(encode_checkpoint(checkpoint, MIXED), recipe="<b>")
    shown = encoded._repr_html_()
    assert "&lt;b&gt;" in shown
    assert f"{len(encoded.artifact):,}" in shown
    assert "<b>" not in shown
    assert SAFETENSORS in read_meta(encoded.artifact)
