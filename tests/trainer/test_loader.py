"""Batches: a pure function of seed and step, shared by the ranks; each order's own law; clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError, UsageError
from codec.storage.token_shards import shard_bytes
from trainer.compute.ranks import Ranks
from trainer.data.loader import Loader
from trainer.presets.train_config import LOADERS


def write(folder: Path, *lengths: int) -> list[np.ndarray]:
    """Shards whose tokens count up through all of them, so that a token tells its place."""
    folder.mkdir(exist_ok=True)
    start, shards = 0, []
    for number, length in enumerate(lengths):
        shards.append(np.arange(start, start + length))
        (folder / f"x_train_{number:03}.bin").write_bytes(shard_bytes(shards[-1]))
        start += length
    return shards


def loader(folder, sequences=3, seed=0, vocab_size=65_536, seq_len=5, **options):
    return Loader(folder, seq_len=seq_len, sequences=sequences, vocab_size=vocab_size, seed=seed, **options)


def epoch_of(folder, lengths, epoch, **options):
    """First token of each window of that epoch, in order: a step as long as an epoch."""
    windows = sum((length - 1) // 5 for length in lengths)
    return loader(folder, windows, **options).batch(epoch)[0][:, 0].numpy()


lengths = st.lists(st.integers(6, 60), min_size=1, max_size=4)


@settings(max_examples=40)
@given(lengths, st.integers(1, 7), st.integers(0, 9), st.integers(0, 2), st.sampled_from(["shuffled", "coprime"]))
def test_every_window_once_per_epoch(tmp_path_factory, lengths, sequences, seed, epoch, kind):
    folder = tmp_path_factory.mktemp("data")
    shards = write(folder, *lengths)
    data = loader(folder, sequences, seed, kind=kind)
    assert data.windows == sum((length - 1) // 5 for length in lengths)
    assert data.tokens == sum(lengths)
    steps = -(-data.windows * 3 // sequences)
    rows = [row for step in range(steps) for row in zip(*data.batch(step), strict=True)]
    for inputs, targets in rows:  # a row that skips would show
        assert targets.tolist() == [token + 1 for token in inputs.tolist()]
        assert any(inputs[0] in shard and targets[-1] in shard for shard in shards)
    one = [int(inputs[0]) for inputs, _ in rows[epoch * data.windows : (epoch + 1) * data.windows]]
    assert len(set(one)) == data.windows
    for shard in shards:  # tiles: no token twice, and no more left over than a window
        mine = sorted(start for start in one if start in shard)
        assert len(mine) == (len(shard) - 1) // 5
        assert set(np.diff(mine)) <= {5}


@settings(max_examples=30)
@given(lengths, st.integers(1, 4), st.integers(1, 4), st.sampled_from(LOADERS), st.integers(0, 50))
def test_ranks_together_have_the_batch_of_one(tmp_path_factory, lengths, world, share, kind, step):
    folder = tmp_path_factory.mktemp("data")
    write(folder, *lengths)
    whole = loader(folder, world * share, kind=kind).batch(step)
    parts = [
        loader(folder, world * share, kind=kind, ranks=Ranks(rank=rank, world=world)).batch(step)
        for rank in range(world)
    ]
    assert all(len(inputs) == share and inputs.dtype == torch.int64 for inputs, _ in parts)
    for ours, wanted in zip(map(torch.cat, zip(*parts, strict=True)), whole, strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_batch_depends_on_seed_and_step_only(tmp_path, kind):
    write(tmp_path / "a", 200, 90)
    write(tmp_path / "b", 200, 90)
    forward = [loader(tmp_path / "a", seed=4, kind=kind).batch(step)[0].tolist() for step in range(60)]
    other = loader(tmp_path / "b", seed=4, kind=kind)
    assert [other.batch(step)[0].tolist() for step in reversed(range(60))] == forward[::-1]
    changed = [loader(tmp_path / "a", seed=5, kind=kind).batch(step)[0].tolist() for step in range(60)]
    assert (changed == forward) == (kind == "sequential")
    assert other.fingerprint() == loader(tmp_path / "a").fingerprint()


@settings(max_examples=30)
@given(lengths, st.integers(1, 5), st.integers(1, 12))
def test_the_sequential_order_reads_on_for_ever(tmp_path_factory, lengths, sequences, seq_len):
    lengths = [length + seq_len for length in lengths]
    folder = tmp_path_factory.mktemp("data")
    stream = np.concatenate(write(folder, *lengths))
    data = loader(folder, sequences, seq_len=seq_len, kind="sequential")
    steps = 2 * len(stream) // (sequences * seq_len) + 1
    inputs, targets = (
        torch.cat(parts).flatten().tolist() for parts in zip(*map(data.batch, range(steps)), strict=True)
    )
    endless = np.tile(stream, 3 + steps * sequences * seq_len // len(stream))
    assert inputs == endless[: len(inputs)].tolist()
    assert targets == endless[1 : len(targets) + 1].tolist()


@pytest.mark.parametrize("kind", ["shuffled", "coprime"])
def test_epochs_differ(tmp_path, kind):
    write(tmp_path, 503)
    first, second = (epoch_of(tmp_path, (503,), epoch, kind=kind).tolist() for epoch in (0, 1))
    assert first != second
    assert (sorted(first) == sorted(second)) == (kind == "shuffled")  # the tail of 503 lets windows begin elsewhere


def test_a_coprime_walk_keeps_its_stride(tmp_path):
    write(tmp_path, 301, 506)
    for epoch in range(3):
        found = epoch_of(tmp_path, (301, 506), epoch, seed=3, kind="coprime")
        for low, high, count in ((0, 301, 60), (301, 807, 101)):
            walk = found[(found >= low) & (found < high)]
            strides = set((np.diff(walk) // 5 % count).tolist())
            assert len(walk) == count
            assert len(strides) == 1
            assert np.gcd(strides.pop(), count) == 1


def test_coprime_walks_mix_in_proportion(tmp_path):
    """After any part of an epoch each shard has given its share, to within two windows."""
    write(tmp_path, 1001, 501, 251)
    found = epoch_of(tmp_path, (1001, 501, 251), 0, kind="coprime")
    for low, high, count in ((0, 1001, 200), (1001, 1502, 100), (1502, 1753, 50)):
        given_so_far = np.cumsum((found >= low) & (found < high))
        fair = np.arange(1, len(found) + 1) * count / len(found)
        assert np.abs(given_so_far - fair).max() < 2.5
        assert given_so_far[-1] == count


def test_the_fingerprint_sees_a_changed_token(tmp_path):
    shards = write(tmp_path, 100)
    before = loader(tmp_path).fingerprint()
    shards[0][50] += 1
    (tmp_path / "x_train_000.bin").write_bytes(shard_bytes(shards[0]))
    assert loader(tmp_path).fingerprint() != before


@pytest.mark.parametrize("kind", LOADERS)
def test_a_short_shard_is_named(tmp_path, kind):
    write(tmp_path, 50, 5)
    with pytest.raises(InputError, match=r"x_train_001.bin: has 5 tokens, one training sequence needs 6"):
        loader(tmp_path, kind=kind)


@pytest.mark.parametrize("kind", LOADERS)
def test_an_unknown_id_is_located(tmp_path, kind):
    write(tmp_path, 30, 10)
    data = loader(tmp_path, sequences=8, vocab_size=33, kind=kind)
    with pytest.raises(InputError, match=r"x_train_001.bin: token (\d) is 3\1, the model knows ids below 33"):
        data.batch(0)


def test_ranks_that_cannot_share_equally_are_refused(tmp_path):
    write(tmp_path, 50)
    with pytest.raises(UsageError, match="a step has 3 sequences, 2 processes cannot share them equally"):
        loader(tmp_path, sequences=3, ranks=Ranks(rank=0, world=2))
