import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import UsageError
from verify.audit.gallery.honest import sliding
from verify.audit.gallery.toy import BOS, Procedure, stream
from verify.audit.perturbations import (
    Scope,
    choose_cuts,
    choose_sums,
    evenly,
    made_up,
    repeats,
    structures,
    substitutions,
    suffixes,
)
from verify.audit.trace import trace

SCOPE = Scope()


@st.composite
def streams(draw):
    """Tokens with document starts, of at least 3 other ids."""
    body = draw(st.lists(st.integers(1, 9), min_size=8, max_size=60))
    return np.array([BOS, 4, 5, 6, *body])


@given(streams(), st.data())
def test_a_suffix_changes_all_later_targets_and_nothing_else(tokens, data):
    cut = data.draw(st.integers(0, len(tokens) - 2))
    (change,) = suffixes(tokens, {cut: "here"}, np.arange(len(tokens) - 1), SCOPE)
    assert (change.tokens[: cut + 1] == tokens[: cut + 1]).all()
    later, was = change.tokens[cut + 1 :], tokens[cut + 1 :]
    assert ((later != was) == (was != BOS)).all()
    assert set(later) <= set(tokens)
    assert change.known.tolist() == [position < cut for position in range(len(tokens) - 1)]


@given(streams(), st.data())
def test_in_a_queue_only_what_comes_later_there_changes(tokens, data):
    order = np.array(data.draw(st.permutations(range(len(tokens) - 1))))
    cut = data.draw(st.integers(0, len(tokens) - 2))
    (change,) = suffixes(tokens, {cut: "here"}, order, SCOPE)
    at = order.tolist().index(cut)
    assert sorted(np.flatnonzero(change.known)) == sorted(order[:at])
    assert (change.tokens[order[:at] + 1] == tokens[order[:at] + 1]).all()
    assert change.tokens[cut + 1] != tokens[cut + 1] or tokens[cut + 1] == BOS


@given(streams(), st.data())
def test_structure_changes_keep_length_and_prefix(tokens, data):
    cut = data.draw(st.integers(0, len(tokens) - 3))
    for change in structures(tokens, [cut], SCOPE):
        assert len(change.tokens) == len(tokens)
        assert (change.tokens[: cut + 2] == tokens[: cut + 2]).all()
        assert change.known.sum() == cut + 1
        assert (change.tokens != tokens).any()


def test_structure_changes_move_document_starts():
    whys = {change.why for change in structures(stream(), [20], SCOPE)}
    assert len(whys) == 3
    for change in structures(stream(), [20], SCOPE):
        assert not np.array_equal(np.flatnonzero(change.tokens == BOS), np.flatnonzero(stream() == BOS)), change.why
    assert not list(structures(stream(), [20], Scope(bos=None)))


def test_substitutions_try_each_id_once():
    changes = list(substitutions(stream(), 7, range(5)))
    assert [change.tokens[8] for change in changes] == [0, 1, 2, 3, 4]
    assert all((np.delete(change.tokens, 8) == np.delete(stream(), 8)).all() for change in changes)


@pytest.mark.parametrize("count", [1, 5, 40, 500])
def test_cuts_lie_at_every_kind_of_edge_as_far_as_their_number_allows(count):
    base = trace(Procedure("sliding", sliding), stream(), batch=4)
    cuts = choose_cuts(base, stream(), Scope(cuts=count, periods=(8, 48)))
    assert len(cuts) == min(count, len(stream()) - 1)
    assert all(0 <= cut < len(stream()) - 1 for cut in cuts)
    if count == 40:
        edges = {"batch edge", "document edge", "rank split", "tail", "multiple of 8", "multiple of 48", "inside"}
        assert edges <= set(cuts.values())


@given(st.lists(st.integers(), max_size=50), st.integers(0, 60))
def test_evenly_takes_no_more_than_asked_in_order(places, count):
    found = evenly(places, count)
    assert len(found) == min(count, len(places))
    remaining = iter(places)
    assert all(place in remaining for place in found)


def test_repeats_are_where_the_last_two_tokens_came_before():
    assert repeats(np.array([1, 5, 6, 7, 5, 6, 8, 6, 7, 5])).tolist() == [5, 8]


def test_made_up_text_repeats_and_has_documents():
    tokens = made_up(40, 200, SCOPE)
    assert len(tokens) == 201
    assert (tokens == BOS).sum() > 3
    assert len(repeats(tokens)) > 80
    assert tokens.max() < 40
    assert (made_up(40, 200, Scope(bos=None)) != 1).all()
    with pytest.raises(UsageError):
        made_up(7, 200, SCOPE)


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_half_of_the_summed_positions_repeat_their_context(count):
    base = trace(Procedure("sliding", sliding), stream(), batch=4)
    cuts = choose_cuts(base, stream(), SCOPE)
    chosen = choose_sums(cuts, count)
    repeated = sum(cuts[cut] == "repeated context" for cut in chosen)
    assert len(chosen) == min(count, len(cuts)) == len(set(chosen))
    assert repeated >= min((count + 1) // 2, list(cuts.values()).count("repeated context"))
