import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError, UsageError
from tests.verify.models import VOCAB, Toy, stream
from verify.scoring.ranks import Ranks
from verify.scoring.token_stream import Stream, predict
from verify.scoring.windows import Window, plan

torch.set_num_threads(1)
TOY = Toy()


def scores(source, windows, **options):
    return list(source.scores(TOY, windows, **{"batch": 3, "ranks": Ranks()} | options))


def test_a_target_is_revealed_when_its_score_is_fixed():
    tokens, _ = stream(40)
    source = Stream(tokens)
    assert source.revealed(0, 1).tolist() == tokens[:1].tolist()
    with pytest.raises(UsageError, match="tokens 0 to 2 were asked for, 1 are revealed"):
        source.revealed(0, 2)
    for part in source.scores(TOY, plan(40, 16, 4), batch=2, ranks=Ranks()):
        frontier = source.committed
        assert part.positions[-1] + 1 == frontier
        assert source.revealed(frontier - 2, frontier + 1).tolist() == tokens[frontier - 2 : frontier + 1].tolist()
        with pytest.raises(UsageError, match=f"{frontier + 1} are revealed"):
            source.revealed(frontier, frontier + 2)
    assert source.committed == source.targets == 40


@pytest.mark.parametrize(
    "windows", [[Window(4, 20, 16)], [Window(0, 16, 0), Window(8, 24, 20)], [Window(0, 16, 0), Window(0, 16, 0)]]
)
def test_positions_are_neither_left_out_nor_scored_twice(windows):
    with pytest.raises(UsageError, match="comes next"):
        scores(Stream(stream(40)[0]), windows)


def test_a_second_pass_is_refused():
    source = Stream(stream(40)[0])
    scores(source, plan(40, 16, 4))
    with pytest.raises(UsageError, match="position 0 is to be scored, 40 comes next"):
        scores(source, plan(40, 16, 4))


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 20), st.integers(1, 20)).filter(lambda s: s[2] <= s[1]),
    st.integers(1, 6),
    st.integers(1, 5),
)
def test_ranks_share_the_windows_and_all_commit_everything(shape, batch, count):
    tokens, _ = stream(shape[0])
    windows = plan(*shape)
    alone = scores(Stream(tokens), windows, batch=batch)
    shares = []
    for rank in range(count):
        source = Stream(tokens)
        shares += scores(source, windows, batch=batch, ranks=Ranks(count=count, rank=rank))
        assert source.committed == shape[0]
    simulated = scores(Stream(tokens), windows, batch=batch, ranks=Ranks(count=count))
    for found in (shares, simulated):
        assert np.concatenate([part.positions for part in found]).tolist() == list(range(shape[0]))
        assert sum(part.windows for part in found) == len(windows)
        np.testing.assert_allclose(
            np.concatenate([part.nats for part in found]), np.concatenate([part.nats for part in alone]), rtol=1e-6
        )


def contexts(tokens, batch):
    """(hidden, targets) that `adapt` got for each row."""
    seen = []

    def adapt(hidden, targets):
        seen.extend(zip(hidden.clone(), targets.clone(), strict=True))
        return torch.zeros_like(hidden[:, :1])

    scores(Stream(tokens), plan(len(tokens) - 1, 16, 4), batch=batch, adapt=adapt)
    return seen


@pytest.mark.parametrize("batch", [1, 4])
def test_what_adapts_sees_only_the_context_of_each_row(batch):
    """Everything after a row's first scored position is replaced: what `adapt` gets stays the same, bit for bit."""
    tokens, _ = stream(60)
    windows = plan(60, 16, 4)[1:]  # the first one has no context
    found = contexts(tokens, batch)
    assert len(found) == len(windows)
    for row, window in enumerate(windows):
        changed = tokens.copy()
        changed[window.first_scored + 1 :] = (changed[window.first_scored + 1 :] + 7) % VOCAB
        hidden, targets = contexts(changed, batch)[row]
        assert torch.equal(hidden, found[row][0])
        assert targets.tolist() == tokens[window.start + 1 : window.first_scored + 1].tolist()


def test_the_output_matrix_is_applied_to_scored_positions_only():
    calls = []

    class Watched(Toy):
        def head(self, hidden):
            calls.append(hidden.shape[:2])
            return super().head(hidden)

    tokens, _ = stream(43)
    model = Watched()
    found = list(Stream(tokens).scores(model, plan(43, 16, 4), batch=3, ranks=Ranks()))
    assert calls == [(1, 16), (3, 4), (3, 4), (1, 3)]
    assert sum(rows * columns for rows, columns in calls) == 43

    class LogitsOnly:
        logits = staticmethod(TOY.logits)

    plain = list(Stream(tokens).scores(LogitsOnly(), plan(43, 16, 4), batch=3, ranks=Ranks()))
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_allclose(ours.nats, theirs.nats, rtol=1e-6)


def test_log_probs_on_request():
    tokens, _ = stream(43)
    (first, *_), (bare, *_) = (scores(Stream(tokens), plan(43, 16, 4), keep_log_probs=keep) for keep in (True, False))
    assert bare.log_probs is None
    assert first.log_probs.shape == (16, VOCAB)
    np.testing.assert_allclose(np.exp(first.log_probs).sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(first.nats, -first.log_probs[np.arange(16), tokens[1:17]].astype(np.float64))


def test_no_graph_is_kept_and_caches_stay_usable():
    weight = torch.zeros(VOCAB, VOCAB, requires_grad=True)

    class Table:
        cache = None

        def logits(self, ids):
            self.cache = weight * 1
            return self.cache[ids]

    model = Table()
    list(Stream(stream(40)[0]).scores(model, plan(40, 16, 4), batch=4, ranks=Ranks()))
    assert not model.cache.requires_grad
    (model.cache * weight).sum().backward()  # would fail if the cached tensor were an inference tensor


@pytest.mark.parametrize("bad", [lambda x: x[:, 1:], lambda x: x[..., :5], lambda x: x[0]])
def test_logits_of_a_wrong_shape_are_refused(bad):
    class Wrong:
        def logits(self, ids):
            return bad(TOY.logits(ids))

    with pytest.raises(InputError, match=r"logits have shape .* one logit per vocabulary id"):
        list(Stream(np.arange(VOCAB)).scores(Wrong(), plan(VOCAB - 1, 16, 4), batch=2, ranks=Ranks()))


def test_predict_without_context_never_adapts():
    ids = torch.arange(10)[None]
    torch.testing.assert_close(predict(TOY, ids, 0, adapt=None), TOY.logits(ids))
    assert predict(TOY, ids, 0, adapt=lambda *_: 1 / 0).shape == (1, 10, VOCAB)


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_rank_is_refused(count):
    with pytest.raises(UsageError, match="need at least 1"):
        Ranks.of(count)
