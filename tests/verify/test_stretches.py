"""What a script states of its adaptation: every target in one stretch, nothing shown early, anything else refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError
from verify.reveal.stretches import OwnStatement
from verify.scoring.token_bytes import BOS

STATEMENTS = st.one_of(
    st.builds(lambda documents: {"stretch": "window", "documents": documents}, st.booleans()),
    st.builds(
        lambda targets, documents: {"stretch": "chunk", "targets": targets, "documents": documents},
        st.integers(1, 40),
        st.booleans(),
    ),
    st.builds(
        lambda order: {"stretch": "document", "order": order}, st.sampled_from(["stream", "shortest", "longest"])
    ),
)


@given(STATEMENTS, st.lists(st.sampled_from([BOS, 5, 6, 7, 8]), min_size=2, max_size=60), st.data())
def test_every_target_is_scored_once_and_shown_once_behind_its_score(stated, ids, data):
    statement, tokens = OwnStatement.read(stated), np.array(ids)
    length = data.draw(st.integers(1, 12))
    stride = data.draw(st.integers(1, length))
    scored, shown, starts = [], [], []
    for part in statement.parts(tokens):
        inside = part.stop - part.start
        starts.append(part.start)
        assert not statement.documents or part.start == 0 or tokens[part.start] == BOS
        assert not statement.documents or BOS not in tokens[part.start + 1 : part.stop]
        for stretch in statement.stretches(inside, length, stride):
            for window in stretch.windows:
                assert 0 <= window.start <= window.first_scored < window.stop <= inside
                assert window.stop - window.start <= length
                scored += range(part.start + window.first_scored, part.start + window.stop)
            shown += range(part.start + stretch.start, part.start + stretch.stop)
            assert set(shown) <= set(scored)
    assert sorted(scored) == sorted(shown) == list(range(len(tokens) - 1))
    if not statement.queue:
        assert scored == shown == list(range(len(tokens) - 1))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 90))
def test_a_short_chunk_is_the_most_that_is_scored_by_one_state(chunk, stride, targets):
    """From the first window on: a window that scores more would leave nothing to learn from."""
    statement = OwnStatement.read({"stretch": "chunk", "targets": chunk})
    for stretch in statement.stretches(targets, 32, stride):
        assert all(window.stop - window.first_scored <= chunk for window in stretch.windows)


def test_queues_take_documents_by_length():
    tokens = np.array([BOS, 5, 5, 5, BOS, 6, BOS, 7, 7, 8])
    first = {
        order: [part.start for part in OwnStatement.read({"stretch": "document", "order": order}).parts(tokens)]
        for order in ("stream", "shortest", "longest")
    }
    assert first == {"stream": [0, 4, 6], "shortest": [4, 6, 0], "longest": [0, 6, 4]}


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (None, "is a NoneType, need a dict"),
        ("chunk", "is a str, need a dict"),
        ({}, "states stretch None, need window, chunk, document"),
        ({"stretch": ["chunk"]}, "states stretch .'chunk'., need window"),
        ({"stretch": "chunk"}, "chunks of None targets, need 1 or more"),
        ({"stretch": "chunk", "targets": 0}, "chunks of 0 targets"),
        ({"stretch": "chunk", "targets": True}, "chunks of True targets"),
        ({"stretch": "chunk", "targets": "9"}, "chunks of '9' targets"),
        ({"stretch": "window", "targets": 9}, "targets of a window, only chunks have so many"),
        ({"stretch": "document", "documents": False}, "documents False with stretch document"),
        ({"stretch": "window", "documents": 1}, "documents 1 with stretch window"),
        ({"stretch": "window", "order": "random"}, "states order 'random', need stream, shortest, longest"),
        ({"stretch": "window", "order": "longest"}, "the order longest, which is one of documents"),
        ({"stretch": "window", "size": 3}, "states 'size', known are stretch, targets, documents, order"),
        ({"stretch": "window", "x" * 99: 3}, "states 'x{39}, known are"),
    ],
)
def test_a_bad_statement_is_one_sentence(stated, words):
    with pytest.raises(InputError, match=words) as error:
        OwnStatement.read(stated)
    assert "A script that adapts itself" in error.value.hint
    assert "\n" not in str(error.value)


@given(STATEMENTS)
def test_a_statement_survives_json(stated):
    statement = OwnStatement.read(stated)
    assert OwnStatement.read(statement.to_dict()) == statement
    assert str(statement)
