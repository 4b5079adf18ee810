import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import UsageError
from verify.windows import plan

shapes = st.tuples(st.integers(1, 600), st.integers(1, 64), st.integers(1, 64)).filter(lambda s: s[2] <= s[1])


@given(shapes)
def test_every_target_is_scored_once_in_order(shape):
    scored = [p for window in plan(*shape) for p in range(window.first_scored, window.stop)]
    assert scored == list(range(shape[0]))


@given(shapes)
def test_windows_fit_and_have_their_context(shape):
    targets, length, stride = shape
    windows = plan(*shape)
    assert len(windows) == 1 + max(0, -(-(targets - length) // stride))
    for number, window in enumerate(windows):
        assert window.start == number * stride
        assert window.start <= window.first_scored < window.stop <= min(window.start + length, targets)
        assert number == 0 or window.first_scored - window.start == length - stride


@pytest.mark.parametrize("stream", ["trimmed", "odd"])
def test_windows_are_those_of_pr_1716(shared, stream):
    golden = np.load(shared / "data/golden/1716/eval.npz")
    targets = int(golden[f"sliding/{stream}/looped/total_targets"])
    ours = [(w.start, w.first_scored - w.start, w.stop - w.start) for w in plan(targets, 64, 16)]
    assert ours == [tuple(row) for row in golden[f"sliding/{stream}/looped/windows"].tolist()]


def test_pr_162_scores_the_tail_repeatedly_and_we_do_not(shared):
    golden = np.load(shared / "data/golden/162/eval.npz")
    assert golden["sliding/trimmed/times_scored"].max() == 4
    assert golden["sliding/trimmed/token_count"] == 1024 + 48
    assert sum(w.stop - w.first_scored for w in plan(1024, 64, 16)) == 1024


@pytest.mark.parametrize("shape", [(0, 8, 4), (-1, 8, 4), (10, 8, 0), (10, 8, 9), (10, 0, 0)])
def test_senseless_shapes_are_refused(shape):
    with pytest.raises(UsageError):
        plan(*shape)
