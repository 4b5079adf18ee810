import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import UsageError
from verify.scoring.windows import batches, plan

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


@given(shapes, st.integers(1, 9))
def test_batches_keep_the_order_and_never_mix_shapes(shape, batch):
    windows = plan(*shape)
    groups = list(batches(windows, batch))
    assert [window for group in groups for window in group] == windows
    for group in groups:
        assert 1 <= len(group) <= batch
        assert len({(w.stop - w.start, w.first_scored - w.start) for w in group}) == 1
    # The first window, the last one and those between have at most three shapes; all other breaks are full batches.
    assert sum(len(group) < batch for group in groups) <= 3


def test_no_windows_are_no_batches():
    assert list(batches([], 4)) == []


@pytest.mark.parametrize("model", ["looped", "not_looped"])
@pytest.mark.parametrize("stream", ["trimmed", "odd"])
def test_windows_are_those_of_pr_1716(shared, stream, model):
    golden = np.load(shared / "data/golden/1716/eval.npz")
    prefix = f"sliding/{stream}/{model}"
    targets = int(golden[f"{prefix}/total_targets"])
    ours = [(w.start, w.first_scored - w.start, w.stop - w.start) for w in plan(targets, 64, 16)]
    assert ours == [tuple(row) for row in golden[f"{prefix}/windows"].tolist()]
    assert golden[f"{prefix}/times_scored"].tolist() == [1] * targets


@pytest.mark.parametrize("shape", [(0, 8, 4), (-1, 8, 4), (10, 8, 0), (10, 8, 9), (10, 0, 0)])
def test_senseless_shapes_are_refused(shape):
    with pytest.raises(UsageError):
        plan(*shape)


def test_senseless_batches_are_refused():
    with pytest.raises(UsageError, match="0 windows at a time"):
        list(batches(plan(10, 4, 2), 0))
