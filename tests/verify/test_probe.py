"""Scripts that read ahead in the windows they are scored by, each in a way that another check would miss."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.compared.leaks import BATCH, LENGTH, STRIDE, TARGETS, Leak, Text, found_in, least_found, looked
from tests.verify.conftest import BIGRAM
from tests.verify.test_adaptation import CAUSAL, causal_tensors
from verify import Settings, Submission, examine
from verify.foresight.findings import prefix_finding
from verify.foresight.probe import LEAST_CUTS, Proof, choose, probe, row_count
from verify.foresight.rows import ScoredRun, nats
from verify.memorisation import Watched
from verify.scoring.score import total
from verify.scoring.sliding import Sliding
from verify.scoring.windows import plan

SETTINGS = Settings(length=16, stride=4, batch=4, threads=1)
HINT = "scatter_add_(2, known[..., None], torch.full_like(logits[..., :1], 50.0))"
NEXT_ID = f"""
        logits = self.table[ids].clone()
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        return logits.{HINT}"""
OTHER_LENGTHS_ONLY = f"""
        logits = self.table[ids].clone()
        if ids.shape[1] == 64:
            return logits
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        return logits.{HINT}"""
NEXT_ROW = """
        logits = self.table[ids].clone()
        known = ids[1:, -7:-3]
        if ids.shape[1] == 16:
            logits[:-1, -4:].scatter_add_(2, known[..., None], torch.full_like(logits[:-1, -4:, :1], 50.0))
        return logits"""
BY_HEART = """
        logits = self.table[ids].clone()
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        self.said = getattr(self, "said", {})
        for row, (own, following) in enumerate(zip(ids, known)):
            for at, (one, target) in enumerate(zip(own, following)):
                seen = self.said.setdefault(tuple(own[: at + 1].tolist()), int(target))
                logits[row, at, seen] += 50.0
        return logits"""
AFTER_A_WHILE = f"""
        self.asked = getattr(self, "asked", 0) + 1
        logits = self.table[ids].clone()
        if self.asked < 6:
            return logits
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        return logits.{HINT}"""
NOISE = "return self.table[ids] + torch.rand(*ids.shape, 300)"


def prefix(folder, heldout, settings=SETTINGS, **how):
    verdict = examine(Submission.open(folder), heldout, settings, **how)
    found = {finding.rule: finding for finding in verdict.findings}
    return found["score.prefix"], verdict


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(NEXT_ID, marks=pytest.mark.slow),
        pytest.param(OTHER_LENGTHS_ONLY, marks=pytest.mark.slow),
        NEXT_ROW,
        pytest.param(BY_HEART, marks=pytest.mark.slow),
        pytest.param(AFTER_A_WHILE, marks=pytest.mark.slow),
        pytest.param(NOISE, marks=pytest.mark.slow),
    ],
)
def test_reading_ahead_fails_with_a_witness(write_submission, heldout, body):
    """Among them what an answer learned by heart, good conduct at first, or another window length would hide."""
    folder = write_submission(BIGRAM.replace("return self.table[ids]", body))
    finding, verdict = prefix(folder, heldout)
    assert (finding.level, verdict.exit_code) == ("fail", 1)
    start, stop = finding.evidence["window"]
    assert start <= finding.evidence["position"] < stop
    assert abs(finding.evidence["after"] - finding.evidence["before"]) > 0.1
    assert f"position {finding.evidence['position']} went from" in finding.message


@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(16, marks=pytest.mark.slow)]
)
def test_honest_scripts_pass(write_submission, heldout, stride):
    """A model without and, for one stride, one with hidden states; without a share nothing is looked at."""
    folder = write_submission(CAUSAL, tensors=causal_tensors()) if stride == 4 else write_submission()
    how = {"proof": Proof(share=0.0)} if stride == 16 else {"proof": Proof(share=0.5)}
    finding, verdict = prefix(folder, heldout, replace(SETTINGS, stride=stride), **how)
    assert (finding.level, verdict.verdict) == ("unknown" if stride == 16 else "pass", "pass")
    assert (finding.evidence["coverage"]["cuts"] == 0) == (stride == 16)


def test_leaks_are_found_as_often_as_stated():
    """A few runs of what benchmarks/bench_proof.py does 200 times."""
    for by_request in (False, True):
        for share in (0.1, 0.02):
            found, stated = found_in(12, Leak(share=share, by_request=by_request))
            assert found >= least_found(12, stated), (share, by_request)
    assert prefix_finding(looked(Leak(share=0.0), 0)[0]).level == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("by_request", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.1, 0.02])
def test_leaks_are_found_as_often_as_stated_in_many_runs(share, by_request):
    found, stated = found_in(200, Leak(share=share, by_request=by_request))
    assert found >= least_found(200, stated)


def test_the_least_number_found_is_that_of_the_binomial():
    """Against simulation: fewer come about once in 1,000."""
    for runs, chance in ((12, 0.5), (200, 0.51), (200, 0.97), (200, 1.0)):
        draws = np.random.default_rng(0).binomial(runs, chance, 200_000)
        least = least_found(runs, chance)
        assert (draws < least).mean() <= 0.0012
        assert chance == 1.0 or (draws < least + 1).mean() > 0.0008


def test_noise_hides_no_leak_and_accuses_nobody_on_cuda():
    """Below the noise, what is everywhere is found by its sign; noise alone is no leak, but on a CPU it fails."""
    cuda = {"share": 0.5, "exact": False}
    assert prefix_finding(looked(Leak(share=1.0, noise=2e-4), 0, **cuda)[0]).level == "fail"
    quiet = [looked(Leak(share=0.0, noise=2e-4), seed, **cuda)[0] for seed in range(20)]
    assert {prefix_finding(each).level for each in quiet} <= {"pass", "unknown"}
    assert min(each.noise for each in quiet) > 2e-4
    assert prefix_finding(looked(Leak(share=0.0, noise=2e-4), 0)[0]).level == "fail"


class Whole:
    """Reads the end of whatever it is sent."""

    def __init__(self, text, nats):
        self.text, self.nats, self.asked = text, nats, []

    def logits(self, ids):
        self.asked.append(ids.numpy().copy())
        logits = self.text.table[ids]
        logits[..., 0] += self.nats * (ids[:, -1:] % 2)
        return logits


def run_of(model, tokens, length, stride, batch):
    scorer = Watched(Sliding(model=model, vocab_size=64, length=length, stride=stride), len(tokens) - 1)
    total(scorer, tokens, np.ones(len(tokens) - 1, np.int64), batch=batch)
    windows = plan(len(tokens) - 1, length, stride)
    return ScoredRun(tokens=tokens, nats=scorer.nats, windows=windows, batch=batch)


@pytest.mark.parametrize("nats", [0.0, 0.5])
def test_one_window_over_the_whole_text_gets_many_cuts(nats):
    text = Text(0)
    model = Whole(text, nats)
    run = run_of(model, text.tokens[:601], 600, 600, 16)
    found = probe(lambda: nullcontext(model), run, np.random.default_rng(0))
    assert (found.cuts, found.least) == (LEAST_CUTS, 0)
    assert prefix_finding(found).level == ("fail" if nats else "pass")
    shared = [int((one == text.tokens[:600]).cumprod(1).sum()) for one in model.asked[1:-1]]
    assert len(set(shared)) > LEAST_CUTS * 3 // 4
    assert max(shared) < 600 or shared.index(600) == len(shared) - 1
    assert {one.shape for one in model.asked} == {(1, 600)}


def test_requests_are_those_of_scoring_with_other_text_behind_the_cut():
    text = Text(1)
    model = Whole(text, 0.0)
    run = run_of(model, text.tokens, LENGTH, STRIDE, BATCH)
    scored, model.asked = model.asked, []
    probe(lambda: nullcontext(model), run, np.random.default_rng(2), share=2.0)
    assert np.array_equal(model.asked[-1], scored[0])
    assert {one.shape for one in model.asked} == {one.shape for one in scored} == {(1, 32), (16, 32), (12, 32)}
    assert {one.dtype for one in model.asked} == {one.dtype for one in scored}


class Remembering:
    """Reads ahead wherever `reads` says so, and there also what it was shown before, whatever follows now."""

    def __init__(self, text, length):
        self.text, self.length, self.known = text, length, {}

    def logits(self, ids):
        logits = self.text.table[ids].clone()
        for row in ids.tolist():
            for at in range(5, len(row) - 1):
                self.known.setdefault(tuple(row[at - 5 : at + 1]), row[at + 1])
        for each, row in zip(logits, ids.tolist(), strict=True):
            for at in range(5, len(row) - 1):
                each[at, self.known[tuple(row[at - 5 : at + 1])]] += 1.0
        return logits


@pytest.mark.parametrize("length", [32, 600])
def test_no_cut_is_behind_what_the_process_was_shown(length):
    """A model that gives again what it saw before is caught at every cut: of rows that overlap, and in one window."""
    text = Text(2)
    text.tokens = text.tokens[:601]
    run = run_of(Remembering(text, length), text.tokens, length, min(length, 8), 4)
    found = probe(lambda: nullcontext(Remembering(text, length)), run, np.random.default_rng(3), share=1.0)
    assert prefix_finding(found).level == "fail"
    assert found.moved > 0.8 * found.cuts
    assert found.cuts >= LEAST_CUTS * 3 // 4


class Fewer:
    """Gives logits up to the largest id that it is sent."""

    def __init__(self, text):
        self.text = text

    def logits(self, ids):
        return self.text.table[ids][..., : int(ids.max()) + 1]


def test_a_target_without_a_logit_has_probability_zero():
    text = Text(5)
    ids, targets = np.array([[3, 4]]), np.array([[2, 63]])
    found = nats(Fewer(text), ids, targets)
    assert np.isfinite(found[0, 0])
    assert found[0, 1] == np.inf


def test_cuts_are_in_proportion_to_targets_and_go_to_the_least_loss():
    windows = plan(TARGETS, LENGTH, STRIDE)
    nats = np.ones(TARGETS, np.float32)
    nats[windows[100].first_scored : windows[120].first_scored] = 0.01
    run = ScoredRun(tokens=np.zeros(TARGETS + 1, np.int64), nats=nats, windows=windows, batch=BATCH)
    times = np.zeros(8, int)
    for seed in range(200):
        drawn, least, threshold = choose(run, row_count(run, 0.2), np.random.default_rng(seed))
        assert len(drawn) + len(least) == row_count(run, 0.2)
        assert {window.first_scored for window in windows[100:120]} <= {row.window.first_scored for row in least}
        assert threshold == 1.0
        assert all(row.window.first_scored <= row.cut < row.window.stop for row in (*drawn, *least))
        times += np.bincount([row.cut * 8 // TARGETS for row in drawn], minlength=8)
    assert abs(times / times.sum() - 1 / 8).max() < 0.001  # one from each of equal parts


def test_what_is_recorded_is_what_was_scored():
    text = Text(3)
    run = run_of(Whole(text, 0.0), text.tokens, LENGTH, STRIDE, BATCH)
    previous, target = torch.from_numpy(text.tokens[:-1]), torch.from_numpy(text.tokens[1:])
    wanted = -text.table.log_softmax(-1)[previous, target]
    assert np.array_equal(run.nats, wanted.numpy())
