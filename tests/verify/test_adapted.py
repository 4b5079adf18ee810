"""Scores by ttt and slot, of a model that can tell them from the sliding score."""

from contextlib import nullcontext

import numpy as np
import pytest

from benchmarks.compared.leaks import BATCH, LENGTH, STRIDE, TARGETS, VOCAB, Text
from verify.foresight.adapted import probe_adapted
from verify.foresight.findings import prefix_finding
from verify.foresight.rows import ScoredRun
from verify.memorisation import Watched
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.adaptation import Adaptation
from verify.scoring.score import total
from verify.scoring.windows import plan

TEXT, HOW = Text(7), Adaptation()


class Asked:
    """In place of `Remote`: a bigram table; where an adaptive scorer asks, the next id is raised by so many nats.

    It learns one thing: how often it was trained.  told: the kinds of all that it was told.
    """

    where, lacks = "", {}

    def __init__(self, raised, told=None, words=()):
        self.raised, self.told, self.words = raised, [] if told is None else told, words

    def asked(self, **words):
        return Asked(self.raised, self.told, words)

    def tell(self, kind, ids=None, **words):
        self.told.append(kind)

    def hidden(self, ids):
        self.ids = ids
        return ids[..., None].float()

    def head(self, hidden):
        logits = TEXT.table[self.ids].clone()
        logits[..., 0] += 0.01 * self.told.count("train")
        known = self.ids.roll(-1, 1)[..., None]
        logits.scatter_add_(2, known, logits.new_full(known.shape, self.raised if self.words else 0.0))
        return logits[:, -hidden.shape[1] :]


def looked(kind, raised, again=None):
    how = {"targets": TARGETS, "length": LENGTH, "stride": STRIDE}
    watched = Watched(scorer_of(kind, Asked(raised), HOW, vocab_size=VOCAB, **how), TARGETS)
    total(watched, TEXT.tokens, np.ones(TARGETS, np.int64), batch=BATCH)
    windows = plan(TARGETS, LENGTH, STRIDE)
    run = ScoredRun(tokens=TEXT.tokens, nats=watched.nats, windows=windows, batch=BATCH)
    second = Asked(raised) if again is None else again
    rng, shape = np.random.default_rng(8), {"length": LENGTH, "stride": STRIDE}
    return probe_adapted(lambda: nullcontext(second), kind, run, HOW, rng, **shape), second


@pytest.mark.parametrize("kind", ["ttt", "slot"])
def test_what_reads_ahead_there_only_is_found(kind):
    honest, model = looked(kind, 0.0)
    assert prefix_finding(honest).level == "pass"
    assert (honest.worst, honest.score, honest.noise) == (None, kind, 0.0)
    assert honest.cuts >= 24
    assert model.told.count("train") == (15 if kind == "ttt" else 0)  # as in the run: 16 chunks
    found = prefix_finding(looked(kind, 0.5)[0])
    assert found.level == "fail"
    assert f"by {kind} when only the text behind position" in found.message


def test_what_learned_otherwise_is_found():
    """A process that was trained before is not the one that scored."""
    assert prefix_finding(looked("ttt", 0.0, Asked(0.0, ["train"]))[0]).level == "fail"
