"""Scripts that adapt by themselves: their numbers are those of one process, and they see nothing before its time."""

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.errors import InputError
from tests.verify.conftest import BIGRAM
from tests.verify.models import nats_of
from verify.rescore import reload
from verify.sandbox import wire
from verify.sandbox.launch import Settings, running
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.adaptation import Adaptation
from verify.scoring.token_bytes import BOS
from verify.scoring.ttt import ScoreFirst
from verify.submission.folder import Submission
from verify.submission_gallery.revealing import script
from verify.submission_gallery.scripts import document_lora, ngram_mixture, ngram_tilt, score_first_sgd
from verify.submission_gallery.stage import SETTINGS, Stage, build_stage

TARGETS = 1500
SAME = 1e-6  # nats of a target


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return build_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def own_nats(stage, tmp_path):
    """Nats of the targets by a script's own adaptation, in the sandbox."""

    def nats(text: str) -> np.ndarray:
        stage.write(tmp_path / "submission", text)
        subject = Submission.open(tmp_path / "submission")
        with running(subject, subject.blob, SETTINGS) as model:
            return nats_of(own(model, stage.heldout.targets), stage.heldout.tokens[: TARGETS + 1])

    return nats


def own(model, targets, length=SETTINGS.length, stride=SETTINGS.stride, **more):
    sizes = {"vocab_size": 0, "targets": targets, "length": length, "stride": stride}
    return scorer_of("own", model, Adaptation(), **sizes, **more)


class Table(torch.nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(table))

    def logits(self, ids):
        return self.table[ids]


def sgd_here(stage, tokens):
    """By the toolkit's scorer of score-first training."""
    how = score_first_sgd
    sizes = {"length": SETTINGS.length, "stride": SETTINGS.stride, "chunk": how.CHUNK}
    training = {"epochs": how.EPOCHS, "sequences": how.ROWS, "lr": how.LR}
    scorer = ScoreFirst(model=Table(stage.table), vocab_size=len(stage.table), **sizes, **training)
    return nats_of(scorer, tokens)


def lora_here(stage, tokens):
    """Document by document, chunk by chunk, without windows, requests or reveals."""
    how, table, found = document_lora, torch.tensor(stage.table), []
    starts = [*np.flatnonzero(tokens[:-1] == BOS), len(tokens) - 1]
    for start, stop in pairwise(starts):
        wide = torch.randn(how.RANK, len(table), generator=torch.Generator().manual_seed(0)).requires_grad_()
        low = torch.zeros(len(table), how.RANK, requires_grad=True)
        adam = torch.optim.Adam([low, wide], lr=how.LR, betas=(0.9, 0.95), eps=1e-10)
        ids = torch.from_numpy(tokens[start : stop + 1].astype(np.int64))
        for at in range(0, len(ids) - 1, how.CHUNK):
            inputs, targets = ids[at : at + how.CHUNK][: len(ids) - 1 - at], ids[at + 1 : at + 1 + how.CHUNK]
            losses = torch.nn.functional.cross_entropy(table[inputs] + low[inputs] @ wide, targets, reduction="none")
            found += losses.tolist()
            adam.zero_grad()
            losses.mean().backward()
            adam.step()
    return np.array(found)


def model_probabilities(stage):
    table = stage.table.astype(np.float64)
    return np.exp(table) / np.exp(table).sum(1, keepdims=True)


def tilt_here(stage, tokens):
    """Token by token: exp(BETA) times the hint's probability, over Z = 1 + p(hint) (exp(BETA) - 1)."""
    p, followed, found = model_probabilities(stage), defaultdict(Counter), []
    for at in range(len(tokens) - 1):
        pair, row, target = (tokens[at - 1] if at else -1, tokens[at]), p[tokens[at]], tokens[at + 1]
        often = followed[pair]
        most = max(often.values(), default=0)
        nats = -np.log(row[target])
        if most >= ngram_tilt.LEAST:
            hint = min(v for v in often if often[v] == most)
            nats += np.log1p(row[hint] * np.expm1(ngram_tilt.BETA)) - ngram_tilt.BETA * (target == hint)
        found.append(nats)
        often[target] += 1
    return np.array(found)


def mixture_here(stage, tokens):
    """Token by token: (1 - w) p + w counts / sum of the counts."""
    p, followed, found = model_probabilities(stage), defaultdict(Counter), []
    for at in range(len(tokens) - 1):
        often, target = followed[tokens[at - 1] if at else -1, tokens[at]], tokens[at + 1]
        q, w = p[tokens[at], target], ngram_mixture.WEIGHT
        found.append(-np.log((1 - w) * q + w * often[target] / often.total() if often.total() else q))
        often[target] += 1
    return np.array(found)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("score_first_sgd", sgd_here),
        pytest.param("document_lora", lora_here, marks=pytest.mark.slow),
        pytest.param("ngram_tilt", tilt_here, marks=pytest.mark.slow),
        pytest.param("ngram_mixture", mixture_here, marks=pytest.mark.slow),
    ],
)
def test_a_script_s_own_numbers_are_those_of_one_process(own_nats, stage, name, here):
    tokens = stage.heldout.tokens[: TARGETS + 1]
    fixed = -np.log(model_probabilities(stage)[tokens[:-1], tokens[1:]])
    expected, given = here(stage, tokens), own_nats(script(name))
    np.testing.assert_allclose(given, expected, atol=SAME)
    assert np.abs(expected - fixed).max() > 0.1, "or nothing adapted"


NOTING = BIGRAM.replace(
    "        return self.table[ids]",
    """        return self.table[ids] if first is None else self.table[ids] + torch.arange(300) * 1e-3 * len(self.shown)

    def begin(self, targets):
        self.targets = targets

    def reveal(self, ids, first):
        assert ids.dtype == torch.int64 and torch.is_grad_enabled()
        self.shown.append((first, ids.tolist()))""",
).replace("logits(self, ids)", "logits(self, ids, first=None)")
NOTING = NOTING.replace("super().__init__()", "super().__init__()\n        self.shown, self.adaptation = [], STATED")


def noting(stated):
    return f"STATED = {stated!r}\n" + NOTING


def test_what_is_revealed_was_scored_and_comes_once_in_order(write_submission, heldout, monkeypatch):
    """Whatever reaches the process is written down: no request before its turn holds a target that it is to score."""
    tokens = heldout.tokens[:100].astype(np.int64)
    subject = Submission.open(write_submission(noting({"stretch": "chunk", "targets": 32})))
    sent, send = [], wire.send

    def seen(pipe, message, ids=None):
        sent.append((message, ids))
        send(pipe, message, ids)

    with running(subject, subject.blob, Settings(length=16, stride=4, threads=1)) as model:
        scorer = own(model, 99, length=16, stride=4, evidence=True)
        monkeypatch.setattr(wire, "send", seen)
        before = nats_of(scorer, tokens, batch=4)
        kinds = [message["kind"] for message, _ in sent]
        again = nats_of(scorer, tokens, batch=4)
        assert nats_of(scorer, tokens, batch=1, ranks=2) == pytest.approx(before, abs=1e-5)
    shown = [(message["first"], ids.tolist()) for message, ids in sent if message["kind"] == "reveal"][:3]
    assert shown == [(at, tokens[at : at + 33].tolist()) for at in (0, 32, 64)]
    # Of 22 windows the first scores 16 targets, 4 more fill the chunk, then 8 each; what is shown is scored.
    assert kinds == ["begin", "logits", "logits", "reveal", *(["logits"] * 2 + ["reveal"]) * 2, "logits"]
    frontier = 0
    for message, ids in sent:
        if message["kind"] == "logits":
            for row, start in zip(ids, message["rows"], strict=True):
                assert row.tolist() == tokens[start : start + len(row)].tolist()
                assert start + len(row) <= len(tokens) - 1
                frontier = start + len(row)
        elif message["kind"] == "reveal":
            assert message["first"] + len(ids) - 1 == frontier
    assert before.tolist() == again.tolist(), "a run begins as the artifact is"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stated", [{"stretch": "document"}, {"stretch": "chunk", "targets": 8, "documents": True}], ids=str
)
def test_requests_do_not_tell_where_a_document_ends(write_submission, heldout, monkeypatch, stated):
    """Up to there they are those of a text that goes on; only what is revealed tells, when it is scored."""
    text = heldout.tokens[:100].astype(np.int64)
    subject = Submission.open(write_submission(noting(stated)))
    asked, send = [], wire.send

    def seen(pipe, message, ids=None):
        if message["kind"] == "logits":
            asked.append((message["rows"], ids.tolist()))
        send(pipe, message, ids)

    with running(subject, subject.blob, Settings(length=16, stride=4, threads=1)) as model:
        scorer, found = own(model, 99, length=16, stride=4), []
        monkeypatch.setattr(wire, "send", seen)
        for end in np.flatnonzero(text == BOS)[1:4]:
            other = text.copy()
            other[end] = 7
            for tokens in (text, other):
                asked.clear()
                for scored in scorer.run(tokens, batch=4):
                    if scored.positions[-1] >= end - 1:
                        break
                found.append(list(asked))
            known = [
                [(rows, [row[: end - at] for row, at in zip(ids, rows, strict=True)]) for rows, ids in each]
                for each in found[-2:]
            ]
            assert known[0] == known[1]
            sizes = [[np.shape(ids) for _, ids in each] for each in found[-2:]]
            assert sizes[0] == sizes[1]
            assert {size[0] for size in sizes[0]} == {1}


@pytest.mark.slow
def test_documents_in_the_order_of_a_queue(write_submission, heldout):
    """The shortest is asked for and shown first; every target is scored once, with its document as context."""
    tokens = heldout.tokens[:100]
    stated = {"stretch": "document", "order": "shortest"}
    subject = Submission.open(write_submission(noting(stated)))
    with running(subject, subject.blob, Settings(length=16, stride=4, threads=1)) as model:
        scored = list(own(model, 99, length=16, stride=4).run(tokens, batch=4))
    starts = [int(part.positions[0]) for part in scored if tokens[part.positions[0]] == BOS]
    ends = [*np.flatnonzero(tokens == BOS), 99]
    lengths = [min(end for end in ends if end > start) - start for start in starts]
    assert lengths == sorted(lengths)
    assert starts != sorted(starts)
    assert sorted(np.concatenate([part.positions for part in scored])) == list(range(99))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(noting({"stretch": "chunk"}), "states chunks of None targets, need 1 or more", id="statement"),
        pytest.param(
            noting({"stretch": "window"}).replace("STATED =", "STATED = {1, 2} or"),
            "is a set that is more than names",
            id="no json",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            NOTING.replace("def reveal", "def shows").replace("STATED", "3"),
            r"own needs a model with `.reveal",
            id="no reveal",
        ),
        pytest.param(
            noting({"stretch": "window"}).replace("assert ids", "raise ValueError('not today'); assert ids"),
            "failed with ValueError: not today",
            id="raises",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_adapt_is_told_in_one_sentence(write_submission, heldout, text, words):
    subject = Submission.open(write_submission(text))
    with pytest.raises(InputError, match=words) as error:
        reload(subject, subject.blob, heldout, Settings(length=16, stride=4, threads=1), score="own")
    assert Path(error.value.where).name == "train_gpt.py"
