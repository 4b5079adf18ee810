import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from codec.errors import InputError, UsageError
from tests.verify.models import VOCAB, Toy, golden, nats_of, shrunk, stream
from verify.scoring.score import Score, total
from verify.scoring.scorer import Scored
from verify.scoring.sliding import Sliding, digest
from verify.scoring.token_bytes import TokenBytes

torch.set_num_threads(1)
SLIDING = Sliding(model=Toy(), vocab_size=VOCAB, length=16, stride=4)


def naive_nats(model, tokens, length, stride):
    """Each position by itself, in the window that belongs to it; nothing after it is even passed in."""
    ids, nats = torch.tensor(tokens.astype(np.int64)), []
    for position in range(len(ids) - 1):
        start = 0 if position < length else stride * math.ceil((position - length + 1) / stride)
        log_probs = model.logits(ids[None, start : position + 1])[0, -1].log_softmax(0)
        nats.append(-log_probs[ids[position + 1]].item())
    return np.array(nats)


@pytest.mark.parametrize(
    ("count", "length", "stride"), [(100, 16, 4), (101, 16, 5), (9, 16, 4), (16, 16, 16), (50, 7, 1)]
)
def test_equals_scoring_each_position_alone(count, length, stride):
    tokens, token_bytes = stream(count)
    scorer = replace(SLIDING, length=length, stride=stride)
    expected = naive_nats(scorer.model, tokens, length, stride)
    np.testing.assert_allclose(nats_of(scorer, tokens), expected, rtol=1e-5)
    score = total(scorer, tokens, token_bytes, batch=3)
    assert score.nats == pytest.approx(expected.sum(), rel=1e-6)
    assert (score.scorer, score.tokens, score.bytes) == ("sliding", count, token_bytes.sum())
    assert score.loss == pytest.approx(score.nats / count)
    assert score.bpb == pytest.approx(score.nats / math.log(2) / token_bytes.sum())
    assert set(score.to_dict()) == {"scorer", "nats", "tokens", "bytes", "loss", "bpb", "seconds", "windows"}
    json.dumps(score.to_dict())


def test_batches_and_ranks_change_nothing_and_no_window_is_padded():
    tokens, token_bytes = stream(203)
    shapes = []

    class Watched(Toy):
        def hidden(self, ids):
            shapes.append(tuple(ids.shape))
            assert ids.dtype == torch.int64
            return super().hidden(ids)

    scorer = replace(SLIDING, model=Watched())
    scores = [total(scorer, tokens, token_bytes, batch=batch) for batch in (1, 2, 7, 500)]
    assert shapes[-3:] == [(1, 16), (46, 16), (1, 15)]
    scores += [total(scorer, tokens, token_bytes, batch=7, ranks=ranks) for ranks in (2, 3, 60)]
    assert {score.windows for score in scores} == {48}
    assert all(score.nats == pytest.approx(scores[0].nats, rel=1e-7) for score in scores)


def test_a_uniform_model_costs_log_vocabulary():
    class Uniform:
        def logits(self, ids):
            return torch.zeros(*ids.shape, VOCAB, dtype=torch.bfloat16)

    tokens, token_bytes = stream(300)
    score = total(replace(SLIDING, model=Uniform()), tokens, token_bytes, batch=4)
    assert score.loss == pytest.approx(math.log(VOCAB), rel=1e-6)


def test_progress_counts_targets():
    tokens, token_bytes = stream(100)
    calls = []
    score = total(SLIDING, tokens, token_bytes, batch=4, progress=lambda done, note: calls.append((done, note)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (100, f"bpb {score.bpb:.4f}")


def test_bad_models_and_settings_are_refused():
    tokens, token_bytes = stream(40)
    broken = Toy()
    with torch.no_grad():
        broken.temperature.fill_(math.nan)
    with pytest.raises(InputError, match="not finite between targets 0 and 16"):
        total(replace(SLIDING, model=broken), tokens, token_bytes, batch=4)
    with pytest.raises(InputError, match="sum of at least 1"):
        total(SLIDING, tokens, token_bytes * 0, batch=4)
    with pytest.raises(InputError, match="39 byte counts"):
        total(SLIDING, tokens, token_bytes[1:], batch=4)
    for bad in ({"batch": 0}, {"batch": 4, "ranks": 0}):
        with pytest.raises(UsageError, match=r"0 (windows|ranks)"):
            total(SLIDING, tokens, token_bytes, **bad)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[0, 1, 2], [2, 3]], "gave 5 scores for 4 of 4 targets"),
        ([[0, 1, 1, 3]], "gave 4 scores for 3 of 4 targets"),
        ([[0, 1, 2]], "gave 3 scores for 3 of 4 targets"),
    ],
)
def test_a_scorer_that_repeats_or_skips_targets_gets_no_score(positions, message):
    class Careless:
        name, vocab_size = "careless", VOCAB

        def run(self, tokens, *, batch, ranks=1):
            for part in positions:
                yield Scored(positions=np.array(part), nats=np.ones(len(part)))

    with pytest.raises(InputError, match=f"careless {message}, need one for each"):
        total(Careless(), *stream(4), batch=1)
    positions = [[3, 1], [0, 2]]  # another order is no error
    assert total(Careless(), *stream(4), batch=1).nats == 4


def test_evidence_names_the_state_and_changes_no_score():
    tokens, _ = stream(60)
    model = Toy()
    bare, full = (list(replace(SLIDING, model=model, evidence=e).run(tokens, batch=4)) for e in (False, True))
    assert [part.digest for part in bare] == [""] * len(bare)
    assert {part.digest for part in full} == {digest(model)}
    for one, other in zip(bare, full, strict=True):
        assert one.nats.tolist() == other.nats.tolist()
        assert one.log_probs is None
        assert other.log_probs.shape == (len(other.positions), VOCAB)


def test_digest_sees_every_kind_of_change():
    """Also those that torch's version counters miss."""
    model = Toy(torch.bfloat16)
    seen = {digest(model), digest(model, torch.zeros(2)), digest(model, torch.zeros(2, 1))}
    model.square_bank.data[5, 7, 7].add_(1e-2)
    seen.add(digest(model))
    model.temperature.data.mul_(2)
    seen.add(digest(model))
    assert len(seen) == 5
    assert digest(model) == digest(model)
    assert digest(object()) == ""


@pytest.mark.parametrize("name", ["trimmed", "odd"])
@pytest.mark.parametrize("pull_request", ["162", "339", "1176", "1716", "1716 not looped"])
def test_seed_systems_with_each_target_counted_once(shared, pull_request, name):
    """Loss, bytes and bpb of the original scripts; 1716's are its own score, the others' repeated tail is left out."""
    pull_request, _, looping = pull_request.partition(" ")
    stored = golden(shared, pull_request)
    prefix = f"sliding/{name}" + {"162": "", "339": "", "1176": ""}.get(
        pull_request, "/not_looped" if looping else "/looped"
    )
    table = TokenBytes(
        length=stored["lut/base_bytes"].astype(np.int64),
        spaced=stored["lut/has_leading_space"],
        boundary=stored["lut/is_boundary"],
        unknown=np.zeros(128, bool),
        operator=np.zeros(128, bool),
    )
    token_bytes = table.of(stored[f"tokens/{name}"])
    assert token_bytes.tolist() == stored[f"{prefix}/target_bytes"].tolist()
    scorer = Sliding(model=shrunk(shared, pull_request, looping=not looping), vocab_size=128, length=64, stride=16)
    nats = nats_of(scorer, stored[f"tokens/{name}"], batch=32)
    np.testing.assert_allclose(nats, stored[f"{prefix}/first_score_nll"], atol=1e-4)
    score = total(scorer, stored[f"tokens/{name}"], token_bytes, batch=8)
    assert isinstance(score, Score)
    assert score.loss == pytest.approx(float(stored[f"{prefix}/single_count_loss"]), rel=1e-5)
    assert score.bytes == stored[f"{prefix}/single_count_bytes"]
    assert score.bpb == pytest.approx(float(stored[f"{prefix}/single_count_bpb"]), rel=1e-5)
    if pull_request == "1716":
        assert score.loss == pytest.approx(float(stored[f"{prefix}/val_loss"]), rel=1e-5)
        assert score.bpb == pytest.approx(float(stored[f"{prefix}/val_bpb"]), rel=1e-5)
