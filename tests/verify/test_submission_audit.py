"""Submissions whose model, behind the script's own `logits`, does what it must not; and one that does not."""

from dataclasses import replace

import pytest

from tests.verify.conftest import BIGRAM
from tests.verify.test_adaptation import CAUSAL, causal_tensors
from verify.audit.perturbations import Scope
from verify.audit.submission_audit import audit_submission
from verify.sandbox.launch import Settings
from verify.scoring.adaptation import Adaptation
from verify.submission.folder import Submission

SCOPE = Scope(cuts=8, coded=6)
SETTINGS = Settings(length=16, stride=8, batch=4, threads=1)
PLAIN = "return self.table[ids]"
READS_AHEAD = """
        logits = self.table[ids].clone()
        logits[:, :-1].scatter_add_(2, ids[:, 1:, None], torch.full_like(logits[:, 1:, :1], 2.0))
        return logits"""
REMEMBERS = """
        self.seen = getattr(self, "seen", 0) + 1
        return self.table[ids] + torch.arange(300) * 1e-3 * self.seen"""
MIXES_ROWS = "return self.table[ids] + self.table[ids].mean((0, 1))"


LEARNS_FOR_GOOD = """
        if torch.is_grad_enabled():
            with torch.no_grad():
                Causal.seen = getattr(Causal, "seen", 0) + torch.nn.functional.one_hot(ids, 300).float().mean((0, 1))
        return self.head(self.hidden(ids)) + getattr(Causal, "seen", 0)"""


def levels(folder, heldout, score="sliding", settings=SETTINGS):
    found = audit_submission(Submission.open(folder), heldout.tokens[:120], SCOPE, settings, score=score)
    return found, {finding.rule: finding.level for finding in found.findings}


@pytest.mark.slow
def test_an_honest_submission(write_submission, heldout):
    found, level = levels(write_submission(), heldout)
    assert found.violations == ()
    undecided = {rule for rule, one in level.items() if one == "unknown"}
    assert undecided == {"audit.bytes"}
    assert found.coverage["window"] == {"length": 16, "stride": 8, "stated_length": None}
    assert found.coverage["vocab_size"] == 300


@pytest.mark.slow
@pytest.mark.parametrize("score", ["ttt", "slot"])
def test_an_honest_model_that_adapts(write_submission, heldout, score):
    """Every check passes, those of states, of watched and of fresh processes too; bytes are counted elsewhere."""
    settings = replace(SETTINGS, adaptation=Adaptation(chunk=32, lr=0.1, slot_lr=0.05))
    found, level = levels(write_submission(CAUSAL, tensors=causal_tensors()), heldout, score, settings)
    assert {rule for rule, one in level.items() if one != "pass"} == {"audit.bytes"}
    assert found.coverage["score"] == score
    assert found.coverage["scope"]["periods"] == ((8, 16, 32) if score == "ttt" else (8, 16))


@pytest.mark.slow
def test_what_is_learned_in_one_run_and_kept_for_the_next(write_submission, heldout):
    """The copy that learns is thrown away; what the script keeps beside it shows."""
    without_parts = CAUSAL.replace("def hidden", "def inner").replace("self.hidden(", "self.inner(")
    body = LEARNS_FOR_GOOD.strip().replace("self.hidden(", "self.inner(")
    script = without_parts.replace("return self.head(self.inner(ids))", body)
    _, level = levels(write_submission(script, tensors=causal_tensors()), heldout, "ttt")
    assert level["audit.determinism"] == "fail"


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        (READS_AHEAD, {"audit.prefix", "audit.self_target", "audit.kraft", "audit.codec"}),
        pytest.param(REMEMBERS, {"audit.determinism"}, marks=pytest.mark.slow),
        pytest.param(MIXES_ROWS, {"audit.prefix", "audit.batch"}, marks=pytest.mark.slow),
    ],
)
def test_a_model_that_cheats(write_submission, heldout, body, rules):
    assert PLAIN in BIGRAM
    found, level = levels(write_submission(BIGRAM.replace(PLAIN, body.strip())), heldout)
    assert {rule for rule in rules if level[rule] in ("fail", "warn")} == rules
    assert found.exit_code == 1
