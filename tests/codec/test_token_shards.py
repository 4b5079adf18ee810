"""Data folders: what is missing is named, with the command that makes it."""

import numpy as np
import pytest

from codec.errors import InputError
from codec.storage.token_shards import find_shards, find_tokenizer, open_shard, shard_bytes


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
    for name in ("x_val_000001.bin", "x_val_000000.bin", "x_val_bytes_000000.bin", "x_train_000000.bin"):
        (tmp_path / name).write_bytes(shard_bytes(np.arange(3)))
    assert [path.name for path in find_shards(tmp_path, "val")] == ["x_val_000000.bin", "x_val_000001.bin"]
    assert open_shard(find_shards(tmp_path, "train")[0]).tolist() == [0, 1, 2]
    (tmp_path / "other.model").touch()
    with pytest.raises(InputError, match="holds 2 tokenizers"):
        find_tokenizer(tmp_path)
