"""Data folders: what is missing is named, with the command that makes it."""

import numpy as np
import pytest

from codec.errors import InputError
from codec.storage.token_shards import find_shards, find_tokenizer, open_shard, shard_bytes, stated_bytes


@pytest.mark.parametrize("find", [find_tokenizer, lambda folder: find_shards(folder, "val")])
def test_a_missing_folder_is_named_as_such(tmp_path, find):
    for folder in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(InputError) as error:
            find(folder)
        assert str(error.value) == f"{folder}: no such data folder; make one with `pgolf data`"


def test_an_empty_folder_is_told_apart_from_a_missing_one(tmp_path):
    with pytest.raises(InputError, match=r"holds no \*_val_\*\.bin shard"):
        find_shards(tmp_path, "val")
    with pytest.raises(InputError, match="holds 0 tokenizers"):
        find_tokenizer(tmp_path)


def test_the_one_tokenizer_and_the_shards_in_order(tmp_path):
    (tmp_path / "any.model").touch()
    assert find_tokenizer(str(tmp_path)) == tmp_path / "any.model"
    for name, first in (
        ("x_val_000001.bin", 1),
        ("x_val_000000.bin", 2),
        ("x_val_bytes_000000.bin", 2),
        ("x_train_000000.bin", 0),
    ):
        (tmp_path / name).write_bytes(shard_bytes(np.arange(first, first + 3)))
    assert [path.name for path in find_shards(tmp_path, "val")] == ["x_val_000000.bin", "x_val_000001.bin"]
    assert open_shard(find_shards(tmp_path, "train")[0]).tolist() == [0, 1, 2]
    (tmp_path / "other.model").touch()
    with pytest.raises(InputError, match="holds 2 tokenizers"):
        find_tokenizer(tmp_path)


def write(folder, **shards):
    for name, tokens in shards.items():
        (folder / f"{name}.bin").write_bytes(shard_bytes(np.array(tokens)))


@pytest.mark.parametrize("tokens", [[1, 5, 6], [1, 5, 6, 1, 9]], ids=["a copy", "a copy of its beginning"])
@pytest.mark.parametrize("split", ["val", "train"])
def test_a_copy_of_a_shard_is_refused(tmp_path, tokens, split):
    names = (f"a_{split}_0", f"a_{split}_0 - Copy", f"b_{split}_1")
    write(tmp_path, **dict(zip(names, ([1, 5, 6], tokens, [1, 5, 7]), strict=True)))
    with pytest.raises(InputError, match=rf"a_{split}_0\.bin: holds the same 3 tokens as a_{split}_0 - Copy\.bin"):
        find_shards(tmp_path, split)


def test_shards_that_begin_alike_and_go_on_otherwise_are_no_copies(tmp_path):
    same = np.arange(3000)
    write(tmp_path, a_val_0=same, b_val_1=np.append(same[:-1], 1), c_val_2=[])
    assert len(find_shards(tmp_path, "val")) == 3


def test_the_shared_copies_are_refused(shared):
    with pytest.raises(InputError, match="holds the same 8729 tokens as text_val_000000"):
        find_shards(shared / "cases/shards/copy_vals", "val")


def test_sidecars_state_the_bytes_of_each_token(tmp_path):
    write(
        tmp_path, x_val_0=[1, 5, 6], x_val_bytes_0=[0, 300, 2], x_val_1=[1, 7], x_val_bytes_1=[0, 1], y_train_0=[1, 2]
    )
    assert stated_bytes(find_shards(tmp_path, "val")).tolist() == [0, 300, 2, 0, 1]
    assert stated_bytes([str(tmp_path / "x_val_1.bin")]).tolist() == [0, 1]
    assert stated_bytes(find_shards(tmp_path, "train")) is None


def test_sidecars_that_do_not_belong_are_refused(tmp_path):
    write(tmp_path, x_val_0=[1, 5, 6], x_val_1=[1, 7], x_val_bytes_1=[0, 1])
    with pytest.raises(InputError, match=r"x_val_bytes_0\.bin: states the bytes of 0 tokens, x_val_0\.bin has 3"):
        stated_bytes(find_shards(tmp_path, "val"))
    write(tmp_path, x_val_bytes_0=[0, 1, 1, 1])
    with pytest.raises(InputError, match=r"states the bytes of 4 tokens, x_val_0\.bin has 3; use shards and sidecars"):
        stated_bytes(find_shards(tmp_path, "val"))
    write(tmp_path, y_val_bytes_7=[0])
    with pytest.raises(InputError, match=r"y_val_bytes_7\.bin: is a sidecar without its shard"):
        find_shards(tmp_path, "val")
