"""Checkpoints as others write them, and ours."""

import hashlib
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from codec.errors import InputError
from codec.storage.checkpoint import read_checkpoint, weights_sha256, write_checkpoint


def test_round_trip_keeps_shapes_dtypes_and_metadata(tmp_path):
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "a": np.float64(1.5) * np.ones(()),
        "n": np.arange(3),
    }
    write_checkpoint(tmp_path / "x.safetensors", tensors, {"config": {"width": 3}, "seed": 1})
    back, metadata = read_checkpoint(tmp_path / "x.safetensors")
    assert metadata["config"] == {"width": 3}
    assert metadata["seed"] == 1
    for name, tensor in tensors.items():
        assert back[name].shape == tensor.shape, name
        assert back[name].dtype == tensor.dtype
        assert np.array_equal(back[name], tensor)


def test_equal_input_gives_equal_bytes(tmp_path):
    tensors = {name: np.ones(3) for name in "dbca"}
    metadata = {f"key {i}": i for i in range(20)}
    for name in ("one", "two"):
        write_checkpoint(tmp_path / name, tensors, metadata)
        tensors, metadata = dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_sha256_of_weights_tells_every_difference_but_order():
    """Pinned for one tensor against hashlib on the bytes that the docstring names, so that logs stay comparable."""
    one = np.arange(4, dtype="<f4")
    pinned = hashlib.sha256(b"w\0<f4(4,)" + struct.pack("<4f", 0, 1, 2, 3)).hexdigest()
    assert weights_sha256({"w": one}) == pinned
    others = [{"v": one}, {"w": one.reshape(2, 2)}, {"w": one.astype("<f8")}, {"w": one + 1}, {"w": one, "v": one}]
    assert len({weights_sha256(each) for each in [{"w": one}, *others]}) == 6
    assert weights_sha256({"w": one, "v": one}) == weights_sha256({"v": one, "w": one})


def test_bfloat16_is_widened_exactly(tmp_path):
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_file({"w": values}, tmp_path / "x.safetensors")
    assert np.array_equal(read_checkpoint(tmp_path / "x.safetensors")[0]["w"], values.float().numpy())


@pytest.mark.parametrize("content", [b"x" * 100, b"\x10\0\0\0\0\0\0\0{", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(InputError, match="bad"):
        read_checkpoint(tmp_path / "bad")


def test_missing_and_empty_files_are_refused(tmp_path):
    (tmp_path / "empty").touch()
    for name, message in (("gone", "no such file"), ("empty", "is empty")):
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / name)
