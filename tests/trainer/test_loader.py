"""Batches: each window once per epoch, the same for the same seed, clear errors for unusable shards."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError
from codec.shards import shard_bytes
from trainer.loader import Loader


def write(folder: Path, *lengths: int) -> list[np.ndarray]:
    folder.mkdir(exist_ok=True)
    start, shards = 0, []
    for number, length in enumerate(lengths):
        shards.append(np.arange(start, start + length))
        (folder / f"x_train_{number:03}.bin").write_bytes(shard_bytes(shards[-1]))
        start += length
    return shards


def loader(folder, sequences=3, seed=0, vocab_size=65_536, seq_len=5):
    return Loader(folder, seq_len=seq_len, sequences=sequences, vocab_size=vocab_size, seed=seed)


@settings(max_examples=25)
@given(st.lists(st.integers(6, 60), min_size=1, max_size=4), st.integers(1, 7), st.integers(0, 9), st.integers(0, 2))
def test_every_window_once_per_epoch(tmp_path_factory, lengths, sequences, seed, epoch):
    folder = tmp_path_factory.mktemp("data")
    write(folder, *lengths)
    data = loader(folder, sequences, seed)
    assert data.windows == sum((length - 1) // 5 for length in lengths)
    assert data.tokens == sum(lengths)
    steps = -(-data.windows * 3 // sequences)
    rows = [row for step in range(steps) for row in zip(*data.batch(step), strict=True)]
    starts = [int(inputs[0]) for inputs, _ in rows]
    one = starts[epoch * data.windows : (epoch + 1) * data.windows]
    assert len(set(one)) == data.windows
    for inputs, targets in rows:  # tokens count up, so a row that crosses shards or skips would show
        assert targets.tolist() == [token + 1 for token in inputs.tolist()]


def test_a_batch_depends_on_seed_and_step_only(tmp_path):
    write(tmp_path / "a", 200, 90)
    write(tmp_path / "b", 200, 90)
    forward = [loader(tmp_path / "a", seed=4).batch(step)[0].tolist() for step in range(60)]
    other = loader(tmp_path / "b", seed=4)
    assert [other.batch(step)[0].tolist() for step in reversed(range(60))] == forward[::-1]
    assert [loader(tmp_path / "a", seed=5).batch(step)[0].tolist() for step in range(60)] != forward
    assert other.fingerprint() == loader(tmp_path / "a").fingerprint()


def test_epochs_differ_in_order(tmp_path):
    write(tmp_path, 501)
    data = loader(tmp_path, sequences=100)
    first, second = (data.batch(step)[0][:, 0].tolist() for step in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_the_fingerprint_sees_a_changed_token(tmp_path):
    shards = write(tmp_path, 100)
    before = loader(tmp_path).fingerprint()
    shards[0][50] += 1
    (tmp_path / "x_train_000.bin").write_bytes(shard_bytes(shards[0]))
    assert loader(tmp_path).fingerprint() != before


def test_a_short_shard_is_named(tmp_path):
    write(tmp_path, 50, 5)
    with pytest.raises(InputError, match=r"x_train_001.bin: has 5 tokens, one training sequence needs 6"):
        loader(tmp_path)


def test_an_unknown_id_is_located(tmp_path):
    write(tmp_path, 40)
    data = loader(tmp_path, sequences=7, vocab_size=33)
    with pytest.raises(InputError, match=r"token 3[3-6] is 3[3-6], the model knows ids below 33"):
        data.batch(0)
