"""Toys that adapt by themselves and read ahead, and what another process makes of their scores."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.compared.leaks import BATCH, TARGETS, Leak, Text, found_in, least_found, nats_of
from benchmarks.compared.own_leaks import (
    STATED,
    InProcess,
    LeakingLearner,
    looked_own,
    own_run,
    process,
)
from codec.errors import InputError
from verify import Submission, examine
from verify.foresight.findings import prefix_finding
from verify.foresight.own import OwnRun, probe_own
from verify.foresight.probe import Proof
from verify.reveal.stretches import OwnStatement
from verify.sandbox.model_server import Served
from verify.sandbox.own_scorer import OwnScorer
from verify.submission_gallery import FOLDERS
from verify.submission_gallery.stage import SETTINGS, build_stage

HONEST = Leak(share=0.0)
QUEUE = {"stretch": "chunk", "targets": 8, "documents": True, "order": "shortest"}
CUDA = {"share": 6.0, "exact": False}


def level(leak, seed, **how):
    return prefix_finding(looked_own(leak, seed, **how)[0]).level


def test_leaks_are_found_as_often_as_stated():
    """A few runs of what benchmarks/bench_proof.py does 200 times."""
    for share, by_request in ((1.0, False), (0.1, False), (0.02, False), (0.02, True)):
        found, stated = found_in(6, Leak(share=share, by_request=by_request), looked_own)
        assert stated > 0.3
        assert found >= least_found(6, stated), (share, by_request)
    assert {level(HONEST, seed) for seed in range(4)} == {"pass"}


@pytest.mark.slow
@pytest.mark.parametrize("by_request", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.1, 0.02])
def test_leaks_are_found_as_often_as_stated_in_many_runs(share, by_request):
    found, stated = found_in(200, Leak(share=share, by_request=by_request), looked_own)
    assert found >= least_found(200, stated)


@pytest.mark.slow
def test_nobody_honest_is_accused_in_many_runs():
    assert {level(HONEST, seed) for seed in range(200)} == {"pass"}
    assert {level(replace(HONEST, noise=2e-4), seed, **CUDA) for seed in range(50)} == {"unknown"}


def test_noise_in_what_it_learned_accuses_nobody_on_cuda():
    """It grows along the run.  A leak above it is found, one below is not claimed to be; on a CPU noise fails."""
    noisy = [looked_own(replace(HONEST, noise=2e-5), seed, **CUDA)[0] for seed in range(4)]
    assert {prefix_finding(each).level for each in noisy} <= {"pass", "unknown"}
    assert all(each.repeated > 2 and each.noise > 5e-5 for each in noisy)
    assert noisy[0].power.seen(1.0) in (0.0, 1.0)
    assert level(Leak(share=0.02, noise=2e-5), 0, **CUDA) == "fail"
    assert level(replace(HONEST, noise=2e-5), 0) == "fail"


class Recorded(InProcess):
    """Writes down what reaches it."""

    def __init__(self, served, words=None, seen=None):
        super().__init__(served, words)
        self.seen = [] if seen is None else seen

    def asked(self, **words):
        return Recorded(self._served, words, self.seen)

    def tell(self, kind, ids, **words):
        self.seen.append((kind, [words["first"]], ids.numpy()[None]))
        super().tell(kind, ids, **words)

    def hidden(self, ids):
        self.seen.append(("logits", self._words["rows"], ids.numpy()))
        return super().hidden(ids)


def recorded(text, learner=LeakingLearner):
    return Recorded(Served(learner(text, HONEST, 0), "cpu"))


def test_what_is_behind_a_cut_was_never_sent_before():
    """Not in another place either.  Requests have the shapes of scoring; the text is revealed as there."""
    text = Text(1)
    scoring, model = recorded(text), recorded(text)
    run = own_run(text, HONEST, 1)
    scorer = OwnScorer(model=scoring, vocab_size=0, length=run.length, stride=run.stride)
    assert np.array_equal(nats_of(scorer, text), run.nats)
    found = probe_own(lambda: nullcontext(model), run, np.random.default_rng(2), share=2.0)
    scored, asked = ([(kind, ids.shape) for kind, _, ids in each.seen] for each in (scoring, model))
    assert set(asked) == set(scored)
    shown = [[(first, ids.tolist()) for kind, first, ids in each.seen if kind == "reveal"] for each in (scoring, model)]
    assert shown[0] == shown[1]
    cuts, unchanged, sent = list[int](), 0, set()  # five tokens in a row, wherever they stood
    for kind, starts, ids in model.seen:
        places = np.array(starts)[:, None] + np.arange(ids.shape[1])
        other = ids != text.tokens[places]
        if other.any():
            cuts.append(int(places[other].min()) - 1)
            assert tuple(text.tokens[cuts[-1] - 3 : cuts[-1] + 2].tolist()) not in sent
            changed = places > cuts[-1]
            pairs = set(zip(places[changed].tolist(), ids[changed].tolist(), strict=True))
            assert len(pairs) == len(np.unique(places[changed])), "one other text in all rows"
        unchanged += kind == "logits" and not other.any()
        sent.update(tuple(row[at : at + 5]) for row in ids.tolist() for at in range(len(row) - 4))
    missing = found.cuts - len(cuts)  # a cut behind which a request has nothing
    assert (found.repeated, found.least, unchanged) == (2, 0, 2 + missing)
    assert (np.bincount(np.array(cuts) * found.cuts // TARGETS, minlength=found.cuts) != 1).sum() <= missing < 5
    sizes = [sum(ids.size for kind, _, ids in each.seen if kind == "logits") for each in (model, scoring)]
    assert found.share == pytest.approx(sizes[0] / sizes[1])


class FromRequests(LeakingLearner):
    """Learns from what it is asked."""

    def logits(self, ids, first):
        logits = super().logits(ids, first)
        self._table[ids[:, :-1], ids[:, 1:]] += 0.01
        return logits


class ByHeart(LeakingLearner):
    """Gives more to the id that it read first behind the same five tokens, wherever that was."""

    def __init__(self, *how):
        super().__init__(*how)
        self.said = {}

    def logits(self, ids, first):
        logits = super().logits(ids, first)
        for out, row in zip(logits, ids.tolist(), strict=True):
            for at, following in enumerate(row[1:]):
                out[at, self.said.setdefault(tuple(row[max(at - 4, 0) : at + 1]), following)] += 1.0
        return logits


@pytest.mark.parametrize("learner", [FromRequests, ByHeart])
def test_state_from_requests_is_found(learner):
    """Also where a script would answer as it did before, from memory: it was not sent the text before the cut."""
    text = Text(3)

    def fresh():
        return InProcess(Served(learner(text, HONEST, 0), "cpu"))

    run = own_run(text, HONEST, 3)
    scorer = OwnScorer(model=fresh(), vocab_size=0, length=run.length, stride=run.stride)
    run = replace(run, nats=nats_of(scorer, text))
    found = probe_own(lambda: nullcontext(fresh()), run, np.random.default_rng(4))
    assert prefix_finding(found).level == "fail"
    assert found.moved > 0.9 * found.rows


class EndOfDocument(LeakingLearner):
    """Gives the next document's start more where a row begins again, as it does behind a document's end."""

    adaptation = QUEUE
    reads = True

    def logits(self, ids, first):
        logits = super().logits(ids, first)
        for out, row in zip(logits, ids, strict=True):
            for at in range(1, len(row)):
                if self.reads and torch.equal(row[at:], row.repeat(2)[: len(row) - at]):
                    out[at - 1, 1] += 1.0
                    break
        return logits


class Documents(EndOfDocument):
    reads = False


@pytest.mark.parametrize(("learner", "level"), [(Documents, "pass"), (EndOfDocument, "fail")])
def test_documents_in_the_order_of_a_queue(learner, level):
    """Rows of one size, other text behind a document's end as well: 64 ends among 512 positions."""
    text = Text(5)
    text.tokens[8::8] = 1
    run = OwnRun(
        tokens=text.tokens[:513],
        nats=np.zeros(512, np.float32),
        statement=OwnStatement.read(learner.adaptation),
        length=32,
        stride=8,
        batch=BATCH,
    )
    start = lambda: nullcontext(InProcess(Served(learner(text, HONEST, 0), "cpu")))  # noqa: E731
    with start() as model:
        scorer = OwnScorer(model=model, vocab_size=0, length=32, stride=8)
        for scored in scorer.run(run.tokens, batch=BATCH):
            run.nats[scored.positions] = scored.nats
    found = prefix_finding(probe_own(start, run, np.random.default_rng(6), share=1.0))
    assert found.level == level


def test_another_statement_is_told():
    text = Text(0)
    run = replace(own_run(text, HONEST, 0), statement=OwnStatement.read({**STATED, "targets": 128}))
    with pytest.raises(InputError, match="adapts by itself otherwise in each process"):
        probe_own(lambda: nullcontext(process(text, HONEST, 0)), run, np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.05])
def test_by_the_whole_pipeline(tmp_path, share):
    """Of a folder: the finding beside that of the sliding score, with the same evidence; neither without a share."""
    stage = build_stage(tmp_path)
    FOLDERS["reveal: score-first SGD"].change(tmp_path / "submission", stage)
    verdict = examine(Submission.open(tmp_path / "submission"), stage.heldout, SETTINGS, proof=Proof(share=share))
    found = [finding for finding in verdict.findings if finding.rule == "score.prefix"]
    assert [finding.level for finding in found] == ["pass" if share else "unknown"] * 2
    coverage = [finding.evidence["coverage"] for finding in found]
    assert [each["score"] for each in coverage] == ["sliding", "own"]
    assert coverage[0].keys() == coverage[1].keys()
    assert (coverage[1]["cuts"] >= 24) == bool(share)
