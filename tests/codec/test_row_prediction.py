"""Rows that resemble earlier rows are found, coded for less, and come back exactly."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import QuantizedTensor, encode, ledger, unpack
from codec.entropy.row_prediction import differences, find_predictions


def embedding(rows: int, related: int, columns: int = 64, seed: int = 0) -> np.ndarray:
    """Independent rows, `related` of which are a multiple of one row plus a little."""
    random = np.random.default_rng(seed)
    levels = random.normal(0, 20, (rows, columns))
    places = random.choice(rows, related, replace=False)
    levels[places] = levels[places[0]] * random.uniform(0.5, 1.5, (related, 1)) + random.normal(
        0, 1, (related, columns)
    )
    return levels.round().clip(-127, 127).astype(np.int8)


def bits(levels: np.ndarray) -> float:
    return 8 * len(encode({"w": QuantizedTensor(levels, np.ones(len(levels), np.float16))}, {})) / levels.size


def test_related_rows_are_predicted_from_earlier_ones():
    levels = embedding(300, 120)
    found = find_predictions(levels)
    assert found is not None
    predicted = np.flatnonzero(found.multiples)
    assert 115 <= len(predicted) <= 125
    assert (found.references[predicted] < predicted).all()
    changed = differences(levels, found)
    assert np.square(changed[predicted].astype(float)).sum() < 0.1 * np.square(levels[predicted].astype(float)).sum()
    untouched = found.multiples == 0
    assert np.array_equal(changed[untouched], levels[untouched])


def test_independent_rows_are_left_alone():
    assert find_predictions(np.random.default_rng(0).normal(0, 30, (500, 64)).round().astype(np.int8)) is None
    for shape in ((0, 64), (1, 64), (50, 0), (50, 64)):
        assert find_predictions(np.zeros(shape, np.int8)) is None


def test_it_pays():
    # A third of the rows fall from log2(20 sqrt(2 pi e)) = 6.4 bits to 2.3 and a few for the prediction itself.
    assert bits(embedding(600, 200)) < bits(embedding(600, 1)) - 1


@given(st.integers(0, 2**32), st.integers(1, 100), st.integers(16, 40))
@settings(max_examples=25)
def test_round_trip(seed, related, columns):
    random = np.random.default_rng(seed)
    levels = embedding(110, related, columns, seed)
    levels[random.integers(110), random.integers(columns)] = random.choice([-128, 127])
    back = unpack(encode({"w": QuantizedTensor(levels, np.ones(110, np.float16))}, {}))[1]["w"]
    assert np.array_equal(back.levels, levels)


def test_the_ledger_counts_predictions_as_classes():
    levels = embedding(600, 300)
    row = ledger(encode({"w": QuantizedTensor(levels, np.ones(600, np.float16))}, {})).rows[0]
    assert 300 * 8 / 8 < row.class_bytes < 300 * 32 / 8
