"""Scripts that read ahead in the windows they are scored by, each in a way that another check would miss."""

from dataclasses import replace

import numpy as np
import pytest

from tests.verify.conftest import BIGRAM
from tests.verify.test_adaptation import CAUSAL, causal_tensors
from verify import Settings, Submission, examine
from verify.scoring.reservoir import LEAST, MOST, Sample
from verify.scoring.scorer import Scored

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


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    """Which batches are looked at must not be chance here: all four may come from a script's honest beginning."""
    monkeypatch.setattr("verify.pipeline.Sample", lambda: Sample(np.random.default_rng(0)))


def prefix(folder, heldout, settings=SETTINGS):
    verdict = examine(Submission.open(folder), heldout, settings)
    found = {finding.rule: finding for finding in verdict.findings}
    return found["score.prefix"], verdict


@pytest.mark.parametrize("body", [NEXT_ID, OTHER_LENGTHS_ONLY, NEXT_ROW, BY_HEART, AFTER_A_WHILE])
def test_reading_ahead_fails_with_a_witness(write_submission, heldout, body):
    """Among them what an answer learned by heart, good conduct at first, or another window length would hide."""
    folder = write_submission(BIGRAM.replace("return self.table[ids]", body))
    finding, verdict = prefix(folder, heldout)
    assert (finding.level, verdict.exit_code) == ("fail", 1)
    start, stop = finding.evidence["window"]
    assert start <= finding.evidence["position"] < stop
    assert abs(finding.evidence["after"] - finding.evidence["before"]) > 1
    assert f"position {finding.evidence['position']} went from" in finding.message


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_honest_scripts_pass(write_submission, heldout, stride):
    """A model without and, for one stride, one with hidden states; every row and position is looked at in any case."""
    folder = write_submission(CAUSAL, tensors=causal_tensors()) if stride == 4 else write_submission()
    finding, verdict = prefix(folder, heldout, replace(SETTINGS, stride=stride))
    assert (finding.level, verdict.verdict) == ("pass", "pass")
    assert finding.evidence["coverage"]["batches"] >= LEAST


def test_any_batch_may_be_among_those_looked_at():
    class Numbers:
        name, vocab_size = "numbers", 7

        def run(self, tokens, *, batch, ranks=1):
            for number in range(1000):
                yield Scored(positions=np.array([number]), nats=np.zeros(1), windows=1)

    times = np.zeros(1000, int)
    for seed in range(300):
        sample = Sample(np.random.default_rng(seed))
        assert sum(1 for _ in sample.of(Numbers()).run(np.zeros(2), batch=1)) == 1000
        chosen = [int(scored.positions[0]) for scored in sample.batches]
        assert len(set(chosen)) == len(chosen) == MOST
        times[chosen] += 1
    quarters = times.reshape(4, 250).sum(1)  # 2,400 expected in each, deviation 42
    assert abs(quarters - 2400).max() < 250
    assert len(Sample().batches) == 0
