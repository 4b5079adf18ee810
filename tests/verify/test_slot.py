from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from codec.errors import UsageError
from tests.verify.models import VOCAB, Toy, nats_of, shrunk, stream
from verify.scoring.sliding import Sliding, digest
from verify.scoring.slot import ContextSlot, fit_shift
from verify.scoring.windows import plan

torch.set_num_threads(1)
SLOT = ContextSlot(model=Toy(), vocab_size=VOCAB, length=16, stride=4, lr=0.05)
PLAIN = Sliding(model=SLOT.model, vocab_size=VOCAB, length=16, stride=4)


def adam_by_hand(gradient, start, *, steps, lr):
    """AdamW's formula in float64, one vector."""
    x, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        g = gradient(x)
        x *= 1 - lr * 1e-8
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-5)
    return x


def test_every_window_alone_by_hand():
    """Window by window; only the tokens before its first scored position are passed to what fits the shift."""
    tokens, _ = stream(45)
    ids, model = torch.tensor(tokens.astype(np.int64)), SLOT.model
    expected = []
    for window in plan(45, 16, 4):
        context = ids[window.start : window.first_scored + 1]
        hidden = model.hidden(context[None, :-1])[0].detach()

        def gradient(x, hidden=hidden, targets=context[1:]):
            shift = torch.tensor(x, requires_grad=True)
            cross_entropy(model.head(hidden + shift), targets).backward()
            return shift.grad.numpy()

        shift = adam_by_hand(gradient, np.zeros(8), steps=5, lr=0.05) if len(hidden) else np.zeros(8)
        log_probs = model.head(
            model.hidden(ids[None, window.start : window.stop])[0] + torch.tensor(shift)
        ).log_softmax(1)
        for position in range(window.first_scored, window.stop):
            expected.append(-log_probs[position - window.start, ids[position + 1]].item())
    np.testing.assert_allclose(nats_of(SLOT, tokens, batch=5), expected, rtol=1e-5)


def test_windows_do_not_meet_in_a_batch():
    """A shift that they share would move by 1.7 nats with the batch; these agree to rounding."""
    tokens, _ = stream(203)
    alone = nats_of(SLOT, tokens, batch=1)
    for options in ({"batch": 7}, {"batch": 100}, {"batch": 7, "ranks": 3}):
        np.testing.assert_allclose(nats_of(SLOT, tokens, **options), alone, rtol=1e-6)
    assert np.abs(alone - nats_of(PLAIN, tokens))[16:].max() > 0.01


def test_a_row_of_the_fit_ignores_the_others():
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 12, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, VOCAB, (4, 12), generator=generator)
    shifts = fit_shift(SLOT.model.head, hidden, targets, steps=5, lr=0.05)
    assert shifts.shape == (4, 1, 8)
    changed = fit_shift(SLOT.model.head, hidden.roll(1, 0), targets.roll(1, 0), steps=5, lr=0.05)
    torch.testing.assert_close(changed, shifts.roll(1, 0))
    hidden[2] *= -3
    again = fit_shift(SLOT.model.head, hidden, targets, steps=5, lr=0.05)
    torch.testing.assert_close(again[[0, 1, 3]], shifts[[0, 1, 3]], rtol=0, atol=0)
    assert not torch.allclose(again[2], shifts[2])


@pytest.mark.parametrize("batch", [1, 6])
def test_scores_depend_on_the_past_only(batch):
    tokens, _ = stream(90)
    nats = nats_of(SLOT, tokens, batch=batch)
    rng = np.random.default_rng(3)
    for cut in (1, 15, 16, 17, 20, 21, 40, 63, 88):
        changed = tokens.copy()
        changed[cut + 1 :] = rng.integers(0, VOCAB, 90 - cut)
        assert nats_of(SLOT, changed, batch=batch)[:cut].tolist() == nats[:cut].tolist()


def test_without_context_there_is_no_shift():
    tokens, _ = stream(60)
    assert nats_of(SLOT, tokens)[:16].tolist() == nats_of(PLAIN, tokens)[:16].tolist()
    blocks = {"length": 16, "stride": 16}  # no window has any context
    assert nats_of(replace(SLOT, **blocks), tokens).tolist() == nats_of(replace(PLAIN, **blocks), tokens).tolist()


def test_it_adapts_to_what_the_text_is_like():
    tokens = np.random.default_rng(0).integers(0, 3, 200)  # of twenty tokens only three occur
    slot, plain = nats_of(SLOT, tokens), nats_of(PLAIN, tokens)
    assert slot[16:].mean() < plain[16:].mean() - 0.1


def test_the_model_is_never_changed_and_evidence_names_the_shift():
    model = Toy().train()
    before = digest(model)
    parts = list(replace(SLOT, model=model, evidence=True).run(stream(60)[0], batch=4))
    assert digest(model) == before
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert len({part.digest for part in parts}) == len(parts)
    again = list(replace(SLOT, model=model, evidence=True).run(stream(60)[0], batch=4))
    assert [part.digest for part in again] == [part.digest for part in parts]


def test_works_on_a_seed_system(shared):
    """1716's looped model, in float32: batches agree within Adam's sensitivity, 1e-4 nats."""
    tokens = np.load(shared / "data/golden/1716/eval.npz")["tokens/odd"][:400]
    scorer = ContextSlot(model=shrunk(shared, "1716"), vocab_size=128, length=64, stride=16)
    np.testing.assert_allclose(nats_of(scorer, tokens, batch=32), nats_of(scorer, tokens, batch=1), atol=1e-4)


def test_a_model_without_hidden_states_is_refused():
    class LogitsOnly:
        def logits(self, ids):
            return ids

    with pytest.raises(UsageError, match="slot needs a model with"):
        replace(SLOT, model=LogitsOnly())
