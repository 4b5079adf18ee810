"""What stands behind a cut: text of the stream, that could go on there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from verify.foresight.other_text import OtherText


def test_it_goes_on_as_the_text_does_elsewhere():
    """Behind a pair that occurs in several places comes what follows one of them, and not what is true."""
    tokens = np.array([1, 5, 6, 7, 7, 1, 5, 6, 8, 8, 1, 5, 6, 9, 9, 1, 2])
    other = OtherText(tokens, np.random.default_rng(0))
    found = [other.after(5, 6, 7, 3).tolist() for _ in range(50)]
    assert {tuple(each) for each in found} == {(8, 8, 1), (9, 9, 1)}
    assert {tuple(other.after(3, 6, 8, 2).tolist()) for _ in range(50)} == {(7, 7), (9, 9)}  # the last one alone
    assert other.after(40, 41, 1, 2)[0] != 1


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(0, 200), st.data())
def test_it_is_text_of_the_stream_that_differs_at_once(tokens, count, data):
    stream = np.array(tokens)
    at = data.draw(st.integers(0, len(tokens) - 2))
    before, last, truth = (int(stream[max(at + step, 0)]) for step in (-1, 0, 1))
    found = OtherText(stream, np.random.default_rng(0)).after(before, last, truth, count)
    assert found.shape == (count,)
    assert found.dtype == np.int64
    assert set(found.tolist()) <= set(tokens)
    assert not count or found[0] != truth or set(tokens[2:]) <= {truth}


def test_of_a_long_text_a_part_is_enough():
    tokens = np.arange(3 << 20) % 50_000
    found = OtherText(tokens, np.random.default_rng(1)).after(6, 7, 8, 4)
    assert (np.diff(found) % 50_000 == 1).all()
