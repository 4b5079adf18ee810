"""Rows that nearly repeat are found, and coded for less."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codec import QuantizedTensor, encode, ledger, unpack
from codec.prediction import find_repeats


def embedding(rows: int, repeated: int, columns: int = 64, seed: int = 0) -> np.ndarray:
    """Rows of an embedding, `repeated` of them almost equal and scattered among the first third."""
    random = np.random.default_rng(seed)
    levels = random.normal(0, 30, (rows, columns))
    unused = random.choice(rows // 3, repeated, replace=False)
    levels[unused] = levels[unused[0]] + random.normal(0, 0.7, (repeated, columns))
    return levels.round().clip(-127, 127).astype(np.int8)


def test_the_cluster_is_found_whole():
    for seed in range(5):
        levels = embedding(600, 90, seed=seed)
        found = find_repeats(levels)
        assert found is not None
        assert len(found.rows) == 89
        assert found.reference not in found.rows


def test_no_cluster_in_noise():
    assert find_repeats(np.random.default_rng(0).normal(0, 30, (500, 64)).round().astype(np.int8)) is None
    assert find_repeats(np.zeros((50, 64), np.int8)) is None
    assert find_repeats(np.zeros((0, 64), np.int8)) is None


def test_repeats_cost_a_third():
    def row_bits(levels: np.ndarray) -> float:
        return (
            ledger(encode({"w": QuantizedTensor(levels, np.ones(len(levels), np.float16))}, {})).rows[0].bits_per_weight
        )

    # 200 of 600 rows: with 1.6 instead of 7 bits in a third of the rows about 5.2 bits per weight remain.
    assert row_bits(embedding(600, 200)) < 0.8 * row_bits(embedding(600, 1))


@given(st.integers(0, 2**32), st.integers(5, 40), st.integers(16, 40))
def test_round_trip(seed, repeated, columns):
    random = np.random.default_rng(seed)
    levels = embedding(150, repeated, columns, seed)
    levels[random.integers(150), random.integers(columns)] = random.choice([-128, 127])
    back = unpack(encode({"w": QuantizedTensor(levels, np.ones(150, np.float16))}, {}))[1]["w"]
    assert np.array_equal(back.levels, levels)
