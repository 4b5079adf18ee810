import json
import math

import numpy as np
import pytest
import torch

from codec.errors import InputError, UsageError
from verify.scorers import score_sliding

torch.set_num_threads(1)
VOCAB = 20


class Causal:
    """Logits that depend on every token since the window's start, so that context errors show."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(VOCAB, 8, generator=generator, dtype=torch.float64)
        self.head = torch.randn(8, VOCAB, generator=generator, dtype=torch.float64)

    def __call__(self, ids):
        return torch.tanh(self.embedding[ids].cumsum(1) / 3) @ self.head


def stream(count):
    rng = np.random.default_rng(count)
    return rng.integers(0, VOCAB, count + 1).astype(np.uint16), rng.integers(1, 5, count)


def naive_nats(model, tokens, length, stride):
    """Each position by itself, in the window that belongs to it; nothing after it is even passed in."""
    ids, total = torch.tensor(tokens.astype(np.int64)), 0.0
    for position in range(len(ids) - 1):
        start = 0 if position < length else stride * math.ceil((position - length + 1) / stride)
        total -= model(ids[None, start : position + 1])[0, -1].log_softmax(0)[ids[position + 1]].item()
    return total


@pytest.mark.parametrize(
    ("count", "length", "stride"), [(100, 16, 4), (101, 16, 5), (9, 16, 4), (16, 16, 16), (50, 7, 1)]
)
def test_equals_scoring_each_position_alone(count, length, stride):
    tokens, token_bytes = stream(count)
    score = score_sliding(Causal(), tokens, token_bytes, length=length, stride=stride, batch=3)
    assert score.nats == pytest.approx(naive_nats(Causal(), tokens, length, stride), rel=1e-6)
    assert (score.tokens, score.bytes) == (count, token_bytes.sum())
    assert score.loss == pytest.approx(score.nats / count)
    assert score.bpb == pytest.approx(score.nats / math.log(2) / token_bytes.sum())
    assert set(score.to_dict()) == {"scorer", "nats", "tokens", "bytes", "loss", "bpb", "seconds", "windows"}
    json.dumps(score.to_dict())


def test_batch_size_changes_nothing_and_no_window_is_padded():
    tokens, token_bytes = stream(203)
    shapes = []

    def model(ids):
        shapes.append(tuple(ids.shape))
        assert ids.dtype == torch.int64
        return Causal()(ids)

    scores = [score_sliding(model, tokens, token_bytes, length=16, stride=4, batch=batch) for batch in (1, 2, 7, 500)]
    assert len({score.windows for score in scores}) == 1
    assert all(score.nats == pytest.approx(scores[0].nats, rel=1e-9) for score in scores)
    assert shapes[-3:] == [(1, 16), (46, 16), (1, 15)]


def test_a_uniform_model_costs_log_vocabulary():
    tokens, token_bytes = stream(300)
    score = score_sliding(
        lambda ids: torch.zeros(*ids.shape, VOCAB, dtype=torch.bfloat16),
        tokens,
        token_bytes,
        length=32,
        stride=8,
        batch=4,
    )
    assert score.loss == pytest.approx(math.log(VOCAB), rel=1e-6)


def test_progress_counts_targets():
    tokens, token_bytes = stream(100)
    calls = []
    score = score_sliding(
        Causal(),
        tokens,
        token_bytes,
        length=16,
        stride=4,
        batch=4,
        progress=lambda done, note: calls.append((done, note)),
    )
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (100, f"bpb {score.bpb:.4f}")


def test_no_graph_is_kept():
    tokens, token_bytes = stream(40)
    weight = torch.zeros(VOCAB, VOCAB, requires_grad=True)
    score_sliding(lambda ids: weight[ids], tokens, token_bytes, length=16, stride=4, batch=4)
    weight.sum().backward()  # would fail if a cached tensor were an inference tensor


def test_bad_models_and_settings_are_refused():
    tokens, token_bytes = stream(40)
    options = {"length": 16, "stride": 4, "batch": 4}
    with pytest.raises(InputError, match="not finite between targets 0 and 16"):
        score_sliding(lambda ids: Causal()(ids) * float("nan"), tokens, token_bytes, **options)
    with pytest.raises(InputError, match=r"logits have shape \(1, 15, 20\)"):
        score_sliding(lambda ids: Causal()(ids)[:, 1:], tokens, token_bytes, **options)
    with pytest.raises(InputError, match="one logit per vocabulary id"):
        score_sliding(lambda ids: Causal()(ids)[..., :5], tokens, token_bytes, **options)
    with pytest.raises(InputError, match="sum of at least 1"):
        score_sliding(Causal(), tokens, token_bytes * 0, **options)
    with pytest.raises(InputError, match="39 byte counts"):
        score_sliding(Causal(), tokens, token_bytes[1:], **options)
    with pytest.raises(UsageError, match="0 windows"):
        score_sliding(Causal(), tokens, token_bytes, **options | {"batch": 0})


@pytest.mark.parametrize("name", ["trimmed", "odd"])
def test_pr_162_with_each_target_counted_once(shared, name):
    """Loss, bytes and bpb of the original script on its shrunk model, its repeated tail left out."""
    from trainer.model import GPT, GPTConfig

    golden = np.load(shared / "data/golden/162/eval.npz")
    weights = np.load(shared / "data/golden/162/model.npz")
    config = GPTConfig(
        vocab_size=128,
        seq_len=64,
        layers=5,
        dim=64,
        heads=4,
        kv_heads=2,
        mlp_hidden=192,
        bigram_buckets=128,
        bigram_dim=16,
        smear=True,
    )
    model = GPT(config)
    model.load_state_dict(
        {key.removeprefix("state/"): torch.tensor(weights[key]) for key in weights if key.startswith("state/")}
    )
    score = score_sliding(
        model.logits,
        golden[f"tokens/{name}"],
        golden[f"sliding/{name}/target_bytes"].astype(np.int64),
        length=64,
        stride=16,
        batch=8,
    )
    assert score.loss == pytest.approx(float(golden[f"sliding/{name}/single_count_loss"]), abs=1e-5)
    assert score.bytes == golden[f"sliding/{name}/single_count_bytes"]
    assert score.bpb == pytest.approx(float(golden[f"sliding/{name}/single_count_bpb"]), abs=1e-5)
