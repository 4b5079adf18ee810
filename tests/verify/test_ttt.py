import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from codec.errors import UsageError
from tests.conftest import ROOT
from tests.verify.models import VOCAB, Toy, golden, nats_of, shrunk, stream
from verify.scoring.ranks import Ranks
from verify.scoring.score import total
from verify.scoring.sliding import Sliding, digest
from verify.scoring.ttt import Learner, Momentum, Orthogonal, ScoreFirst, cosine, first_blocks, orthogonalize

torch.set_num_threads(1)
TTT = ScoreFirst(
    model=Toy(), vocab_size=VOCAB, length=16, stride=4, chunk=48, epochs=2, sequences=2, lr=0.1, evidence=True
)
VARIANTS = {
    "looped": {},
    "looped_batch3_2epochs": {"sequences": 3, "epochs": 2, "lr": 0.01},
}


@pytest.mark.parametrize(
    ("name", "variant"), [("trimmed", "looped"), ("odd", "looped"), ("odd", "looped_batch3_2epochs")]
)
def test_pr_1716(shared, name, variant):
    """Losses per chunk, learning rates, losses and gradient norms of every step, and how far each weight moved."""
    stored, prefix = golden(shared, "1716"), f"ttt/{name}/{variant}"
    tokens, model = stored[f"tokens/{name}"], shrunk(shared, "1716")
    scorer = ScoreFirst(model=model, vocab_size=128, length=64, stride=16, chunk=256, **VARIANTS[variant])
    nats = nats_of(scorer, tokens, batch=32)
    chunks = [part.sum() for part in np.split(nats, (256, 512, 768))]
    np.testing.assert_allclose(chunks, stored[f"{prefix}/per_chunk_loss_sum"], rtol=1e-6)
    score = total(scorer, tokens, stored[f"sliding/{name}/looped/target_bytes"].astype(np.int64), batch=32)
    assert score.loss == pytest.approx(float(stored[f"{prefix}/val_loss"]), rel=1e-6)
    assert score.bpb == pytest.approx(float(stored[f"{prefix}/val_bpb"]), rel=1e-6)
    assert (score.tokens, score.bytes) == (stored[f"{prefix}/token_count"], stored[f"{prefix}/byte_count"])

    learner = Learner(model, update=scorer.update, clip=scorer.clip, frozen={})
    rates = [scorer.lr * cosine(chunk, 4) for chunk in range(3)]
    np.testing.assert_allclose(rates, stored[f"{prefix}/per_chunk_lr"])
    steps = taught(learner, scorer, tokens, rates)
    np.testing.assert_allclose([step.loss for step in steps], stored[f"{prefix}/train_chunk_and_loss"][:, 1], rtol=1e-6)
    np.testing.assert_allclose(
        [step.gradient_norm for step in steps], stored[f"{prefix}/grad_norm_before_clip"], rtol=1e-5
    )
    check_moved(learner, model, stored, prefix)


def taught(learner, scorer, tokens, rates):
    ids = torch.tensor(tokens.astype(np.int64))
    return [
        step
        for chunk, rate in enumerate(rates)
        for step in learner.train(
            ids[256 * chunk : 256 * (chunk + 1) + 1],
            length=64,
            epochs=scorer.epochs,
            sequences=scorer.sequences,
            lr=rate,
            ranks=Ranks(),
        )
    ]


def check_moved(learner, model, stored, prefix, *, least=60):
    before = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    after = {name: parameter.detach().double() for name, parameter in learner.model.named_parameters()}
    moved = zip(stored[f"{prefix}/final_param_names"], stored[f"{prefix}/final_param_norm_deltanorm_sum"], strict=True)
    compared = 0
    for name, (norm, change, sum_) in moved:
        if name in after:
            assert after[name].norm() == pytest.approx(norm, rel=1e-5), name
            assert (after[name] - before[name]).norm() == pytest.approx(change, rel=1e-3, abs=1e-7), name
            assert after[name].sum() == pytest.approx(sum_, rel=1e-5, abs=1e-3), name
            compared += 1
    assert compared >= least


def test_the_model_handed_in_is_never_changed():
    model = Toy()
    model.embed.weight.requires_grad_(False)
    model.train()
    before = digest(model)
    tokens, _ = stream(300)
    first = nats_of(replace(TTT, model=model), tokens)
    assert digest(model) == before
    assert model.training
    assert not model.embed.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert nats_of(replace(TTT, model=model), tokens).tolist() == first.tolist()  # a run starts afresh


def test_scores_depend_on_the_past_only():
    """All tokens after a cut are replaced; what was predicted before it stays the same, bit for bit."""
    tokens, _ = stream(200)
    nats = nats_of(TTT, tokens)
    rng = np.random.default_rng(3)
    for cut in (1, 15, 16, 47, 48, 49, 96, 143, 144, 150, 191, 199):
        changed = tokens.copy()
        changed[cut + 1 :] = rng.integers(0, VOCAB, 200 - cut)
        assert nats_of(TTT, changed)[:cut].tolist() == nats[:cut].tolist()


def test_chunks_are_scored_before_they_are_learned_and_the_last_is_not_learned(monkeypatch):
    tokens, _ = stream(200)
    lessons, train = [], Learner.train
    monkeypatch.setattr(Learner, "train", lambda self, ids, **how: lessons.append(ids) or train(self, ids, **how))
    plain = nats_of(Sliding(model=TTT.model, vocab_size=VOCAB, length=16, stride=4), tokens)
    ttt = nats_of(TTT, tokens)
    assert ttt[:48].tolist() == plain[:48].tolist()
    assert (ttt[48:] != plain[48:]).all()
    parts = list(TTT.run(tokens, batch=3))
    by_chunk = [{part.digest for part in parts if part.positions[0] // 48 == chunk} for chunk in range(5)]
    assert [len(digests) for digests in by_chunk] == [1] * 5
    assert len(set.union(*by_chunk)) == 5
    assert by_chunk[0] == {digest(TTT.model)}
    assert len(lessons) == 8  # two runs of five chunks
    steps = []
    learner = Learner(TTT.model, update=TTT.update, clip=1.0, frozen={})
    ids = torch.tensor(tokens.astype(np.int64))
    for chunk in range(4):
        options = {"length": 16, "epochs": 2, "sequences": 2, "lr": 0.1 * cosine(chunk, 5), "ranks": Ranks()}
        steps += learner.train(ids[48 * chunk : 48 * chunk + 49], **options)
    assert len(steps) == 4 * 2 * 2
    assert {learner.digest()} == by_chunk[4]


@pytest.mark.parametrize("update", [Momentum(), Momentum(momentum=0.0), Orthogonal()])
def test_it_learns_a_text_that_repeats_itself(update):
    tokens = np.tile(np.random.default_rng(0).integers(0, VOCAB, 24), 20)
    scorer = replace(TTT, update=update, lr=0.05)
    nats = nats_of(scorer, tokens)
    plain = nats_of(Sliding(model=TTT.model, vocab_size=VOCAB, length=16, stride=4), tokens)
    assert nats[-96:].mean() < plain[-96:].mean() - 0.5


@pytest.mark.parametrize("update", [Momentum(), Orthogonal()])
def test_frozen_blocks_keep_every_value_and_the_rest_learns(update):
    """Also the slices of a bank that belong to them, which freezing by names would miss."""
    model = Toy()
    learner = Learner(model, update=update, clip=1.0, frozen=first_blocks(model, 2))
    ids = torch.tensor(stream(48)[0].astype(np.int64))
    learner.train(ids, length=16, epochs=2, sequences=3, lr=0.1, ranks=Ranks())
    before, after = dict(model.named_parameters()), dict(learner.model.named_parameters())
    changed = (before.pop("square_bank") != after.pop("square_bank")).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, False, False, True]
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith(("blocks.0.", "blocks.1.")), name


def test_frozen_blocks_count_neither_in_the_norm_that_is_clipped():
    model = Toy()
    ids = torch.tensor(stream(48)[0].astype(np.int64))
    options = {"length": 16, "epochs": 1, "sequences": 3, "lr": 0.1, "ranks": Ranks()}
    (all_of_it,) = Learner(model, update=Momentum(), clip=1.0, frozen={}).train(ids, **options)
    (part,) = Learner(model, update=Momentum(), clip=1.0, frozen=first_blocks(model, 3)).train(ids, **options)
    logits = model.logits(ids[:-1].view(3, 16))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[1:])
    free = [model.embed.weight, model.output.weight]
    by_hand = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, free)]).norm()
    assert part.gradient_norm == pytest.approx(float(by_hand), rel=1e-5)
    assert part.gradient_norm < all_of_it.gradient_norm


def test_impossible_settings_are_refused():
    tokens, _ = stream(100)
    with pytest.raises(UsageError, match="4 blocks are to be frozen, the model has 3"):
        nats_of(replace(TTT, frozen_blocks=4), tokens)
    with pytest.raises(UsageError, match="chunks of 15 targets hold no sequence of 16"):
        replace(TTT, chunk=15)
    for name in ("epochs", "sequences", "chunk"):
        with pytest.raises(UsageError, match=f"{name} is 0, need at least 1"):
            replace(TTT, **{name: 0})
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(UsageError, match="every parameter is frozen"):
        Learner(model, update=Momentum(), clip=1.0, frozen=first_blocks(model, 1))


@pytest.mark.parametrize("update", [Momentum(), Orthogonal()])
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_change_nothing(update, ranks):
    """Also where sequences and windows cannot be shared evenly, and some ranks have none."""
    tokens, _ = stream(203)
    scorer = replace(TTT, update=update, sequences=3, chunk=80, lr=0.02)
    alone = nats_of(scorer, tokens)
    np.testing.assert_allclose(nats_of(scorer, tokens, ranks=ranks), alone, rtol=2e-5)
    np.testing.assert_allclose(nats_of(scorer, tokens, batch=1), alone, rtol=2e-5)


@pytest.mark.parametrize("name", ["bank_sq", "bank_tall", "bank_wide", "decaying_spectrum"])
def test_orthogonalize_equals_pr_1176(shared, name):
    stored = np.load(shared / "data/golden/1176/optimizer.npz")
    given = torch.tensor(stored[f"ns/{name}/in"])
    full, half = (orthogonalize(given, steps=5, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    np.testing.assert_allclose(full, stored[f"ns/{name}/steps5_f32"], atol=1e-4)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float(), stored[f"ns/{name}/steps5_bf16"], atol=0.13)


PROGRAM = """
import json
import numpy as np, torch
from tests.verify.models import VOCAB, Toy, stream
from verify.scoring.ranks import Ranks
from verify.scoring.sliding import Sliding
from verify.scoring.score import total
from verify.scoring.slot import ContextSlot
from verify.scoring.ttt import ScoreFirst
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
tokens, token_bytes = stream(203)
options = {"model": Toy(), "vocab_size": VOCAB, "length": 16, "stride": 4}
scorers = (
    Sliding(**options),
    ScoreFirst(**options, chunk=80, sequences=3, epochs=2, lr=0.02),
    ContextSlot(**options),
)
found = {}
for scorer in scorers:
    score = total(scorer, tokens, token_bytes, batch=4, ranks=Ranks.joined())
    alone = total(scorer, tokens, token_bytes, batch=4)
    own = sum(part.windows for part in scorer.run(tokens, batch=4, ranks=Ranks.joined()))
    found[scorer.name] = [score.to_dict(), alone.to_dict(), own]
with open(f"rank{torch.distributed.get_rank()}.json", "w") as file:
    json.dump(found, file)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Under torchrun; with 5 sequences in steps of 3 a rank is left without any in every second step."""
    (tmp_path / "score.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "score.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for name in ("sliding", "ttt", "slot"):
        for score, alone, _ in (rank[name] for rank in ranks):
            assert score["nats"] == pytest.approx(alone["nats"], rel=1e-6)
            assert [score[key] for key in ("tokens", "bytes", "windows")] == [203, stream(203)[1].sum(), 48]
        own = [rank[name][2] for rank in ranks]
        assert sum(own) == 48
        assert max(own) < 28  # ttt halves each chunk, the others the whole
