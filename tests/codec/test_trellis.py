"""The trellis of the format and the search through it, against machines and searches written out."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.decoder import Trellis
from codec.errors import UsageError
from codec.quantization.rate_distortion.trellis import CHECKS, best_levels, transitions, trellis_of


def walk(trellis: Trellis, levels):
    """The state before every level; each level has the parity of its state."""
    state, states = np.zeros(1, np.int64), []
    for level in levels:
        states.append(int(state[0]))
        state = trellis.after(state, np.array([level]))
    return states


@pytest.mark.parametrize("states", CHECKS)
def test_two_ways_lead_to_every_state_and_two_leave_it(states):
    trellis = trellis_of(states, 1024)
    previous, levels = transitions(trellis)
    assert previous.shape == levels.shape == (2, states)
    found = {
        (int(begin), int(level), end)
        for way in range(2)
        for end, (begin, level) in enumerate(zip(previous[way], levels[way], strict=True))
    }
    wanted = {
        (state, level, int(trellis.after(np.array([state]), np.array([level]))[0]))
        for state in range(states)
        for level in range(4)
        if level % 2 == (state % 2 if states > 1 else 0)
    }
    assert found == wanted
    assert len(wanted) == 2 * states


@pytest.mark.parametrize("states", sorted(CHECKS)[1:])
def test_levels_that_leave_a_state_and_reach_a_state_are_far_apart(states):
    """Two levels of equal parity differ by 2 modulo 4: both ways out of a state, and both ways into one."""
    trellis = trellis_of(states, 1024)
    previous, levels = transitions(trellis)
    assert ((levels[0] - levels[1]) % 4 == 2).all()
    assert (previous[0] != previous[1]).all()
    assert (np.bincount(previous.ravel(), minlength=states) == 2).all()


@pytest.mark.parametrize("states", sorted(CHECKS)[1:])
def test_the_state_depends_on_levels_modulo_4_alone_whatever_their_sign(states):
    trellis, all_states = trellis_of(states, 7), np.arange(states)
    for level in range(-9, 10):
        assert np.array_equal(trellis.after(all_states, level), trellis.after(all_states, level % 4))


@given(
    states=st.sampled_from(sorted(CHECKS)),
    length=st.integers(1, 7),
    sequences=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_nothing_is_cheaper(states, length, sequences, seed):
    """Against all sequences there are."""
    trellis = trellis_of(states, 1024)
    costs = np.random.default_rng(seed).random((length, 4, sequences)).astype(np.float32)
    taken = best_levels(trellis, costs)
    assert taken.shape == (length, sequences)
    assert taken.dtype == np.uint8
    allowed = []
    for halves in product((0, 2), repeat=length):
        state, levels = np.zeros(1, np.int64), []
        for half in halves:
            levels.append(half + int(state[0]) % 2)
            state = trellis.after(state, np.array(levels[-1:]))
        allowed.append(levels)
    places = np.arange(length)
    totals = costs.astype(np.float64)[places, np.array(allowed)].sum(1)  # (allowed, sequences)
    for lane in range(sequences):
        own = taken[:, lane].tolist()
        assert own in allowed
        assert totals[allowed.index(own), lane] <= totals[:, lane].min() + 1e-5


@pytest.mark.parametrize("states", CHECKS)
def test_a_sequence_begins_in_state_0_and_keeps_the_parity_of_its_states(states):
    trellis = trellis_of(states, 1024)
    costs = np.random.default_rng(1).random((300, 4, 5)).astype(np.float32)
    costs[0, [0, 2]] = 10  # odd levels would be cheaper at first
    taken = best_levels(trellis, costs)
    for lane in range(5):
        assert [level % 2 for level in taken[:, lane]] == [state % 2 for state in walk(trellis, taken[:, lane])]
    assert not (taken[0] % 2).any()


def test_one_state_is_the_nearest_even_level():
    costs = np.random.default_rng(2).random((50, 4, 3)).astype(np.float32)
    taken = best_levels(trellis_of(1, 8), costs)
    assert np.array_equal(taken, np.where(costs[:, 2] < costs[:, 0], 2, 0))


def test_sequences_do_not_touch_each_other():
    trellis, costs = trellis_of(16, 1024), np.random.default_rng(3).random((40, 4, 6)).astype(np.float32)
    whole = best_levels(trellis, costs)
    for lane in range(6):
        assert np.array_equal(
            best_levels(trellis, np.ascontiguousarray(costs[:, :, lane : lane + 1]))[:, 0], whole[:, lane]
        )


def test_other_numbers_of_states_are_refused():
    with pytest.raises(UsageError, match=r"a trellis of 3 states; known: \[1, 4, 8, 16, 32, 64, 128, 256\]"):
        trellis_of(3, 1024)
