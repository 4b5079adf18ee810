"""codec/storage/safetensors_file.py against the safetensors package itself: every dtype, shards, what is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as own
from safetensors.torch import load_file, save_file

from codec.errors import InputError
from codec.storage.safetensors_file import (
    Stored,
    checkpoint_files,
    checkpoint_sha256,
    read_stored,
    write_stored,
)

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def random_tensors(shapes):
    generator = torch.Generator().manual_seed(0)
    return {
        f"{tag}.{number}": (4 * torch.randn(shape, generator=generator)).to(dtype)
        for tag, dtype in DTYPES.items()
        for number, shape in enumerate(shapes)
    }


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=3))
def test_what_torch_wrote_comes_back_bit_for_bit(tmp_path_factory, shapes):
    folder, tensors = tmp_path_factory.mktemp("stored"), random_tensors(shapes)
    save_file(tensors, folder / "a.safetensors", {"format": "pt", "by": "torch"})
    stored, metadata = read_stored(folder / "a.safetensors")
    assert metadata == {"format": "pt", "by": "torch"}
    assert {name: each.dtype for name, each in stored.items()} == {name: name.partition(".")[0] for name in tensors}
    write_stored(folder / "b.safetensors", dict(reversed(stored.items())), {"by": "torch", "format": "pt"})
    back = load_file(folder / "b.safetensors")
    assert {name: bits(each) for name, each in back.items()} == {name: bits(each) for name, each in tensors.items()}
    content = (folder / "b.safetensors").read_bytes()
    write_stored(folder / "c.safetensors", stored, metadata)
    assert (folder / "c.safetensors").read_bytes() == content


def test_the_bytes_are_those_of_the_package(tmp_path):
    arrays = {"a": np.arange(3, dtype=np.int8), "b": np.ones((2, 2), np.float32), "c": np.asarray(1.5)}
    tags = {"a": "I8", "b": "F32", "c": "F64"}
    write_stored(tmp_path / "x", {name: Stored(tags[name], each) for name, each in arrays.items()}, {"k": "v"})
    assert (tmp_path / "x").read_bytes() == own.save(arrays, {"k": "v"})


def test_values_of_bfloat16_are_exact():
    tensor = torch.randn(50, generator=torch.Generator().manual_seed(1)).bfloat16()
    stored = Stored("BF16", tensor.view(torch.int16).numpy().view(np.uint16))
    assert stored.values.dtype == np.float32
    assert stored.values.tolist() == tensor.float().tolist()


@pytest.fixture
def sharded(tmp_path):
    shards = {"one.safetensors": {"a": torch.ones(2)}, "two.safetensors": {"b": torch.zeros(3).bfloat16()}}
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name, {"format": "pt"})
    places = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 14}, "weight_map": places}))
    return index


def test_shards_are_one_checkpoint(sharded):
    for path in (sharded, sharded.parent):
        tensors, metadata = read_stored(path)
        assert {name: each.dtype for name, each in tensors.items()} == {"a": "F32", "b": "BF16"}
        assert metadata == {"format": "pt"}
    assert [each.name for each in checkpoint_files(sharded)] == [sharded.name, "one.safetensors", "two.safetensors"]
    before = checkpoint_sha256(sharded)
    save_file({"a": torch.full((2,), 2.0)}, sharded.parent / "one.safetensors")
    assert checkpoint_sha256(sharded) != before


def index_of(places):
    return lambda index: index.write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (index_of({"a": "one.safetensors", "b": "three.safetensors"}), "three.safetensors: no such file"),
        (index_of({"a": "one.safetensors", "c": "two.safetensors"}), "do not agree about tensor `b`"),
        (index_of({"a": "../one.safetensors"}), "names no shards"),
        (index_of({"a": 1}), "names no shards"),
        (lambda index: save_file({"a": torch.ones(2)}, index.parent / "two.safetensors"), "is in an earlier shard too"),
        (
            lambda index: (index.parent / "two.safetensors").write_bytes(b"12345678{}"),
            "is not a safetensors checkpoint",
        ),
        (lambda index: index.unlink(), "is a folder with 2 safetensors checkpoints, need one"),
    ],
)
def test_shards_that_do_not_fit_are_one_sentence(sharded, damage, sentence):
    damage(sharded)
    with pytest.raises(InputError) as caught:
        read_stored(sharded if sharded.exists() else sharded.parent)
    assert sentence in str(caught.value)
    assert str(caught.value).count(str(sharded.parent)) == 1
