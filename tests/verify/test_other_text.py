"""What stands behind a cut: text of the row that could go on there, and nothing that the row does not show anyway."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from verify.foresight.other_text import other_text


def some(before, truth, count):
    draws = (np.random.default_rng(seed) for seed in range(50))
    return {tuple(other_text(np.array(before), truth, count, rng).tolist()) for rng in draws}


def test_it_goes_on_as_the_row_does_elsewhere():
    """Behind a pair that occurs in several places comes what follows one of them, and not what is true."""
    before = [1, 5, 6, 7, 7, 1, 5, 6, 8, 8, 1, 5, 6, 9, 9, 1, 5, 6]
    assert some(before, 7, 3) == {(8, 8, 1), (9, 9, 1)}
    assert some([3, 6, 4, 2, 6, 5, 6], 5, 2) == {(4, 2)}  # the last one alone
    assert some([2, 3], 3, 3) == {(2, 3, 2)}
    assert some([4, 4], 4, 3) == {(3, 4, 4)}
    assert some([0], 0, 2) == {(1, 0)}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 9), st.integers(1, 60), st.integers(0, 9))
def test_it_shows_nothing_and_differs_at_once(before, truth, count, seed):
    found = other_text(np.array(before), truth, count, np.random.default_rng(seed))
    assert (found.shape, found.dtype) == ((count,), np.int64)
    assert found[0] != truth
    assert set(found[1:].tolist()) <= set(before)
