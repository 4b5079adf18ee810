"""Submissions whose model, behind the script's own `logits`, does what it must not; and one that does not."""

import pytest

from tests.verify.conftest import BIGRAM
from verify.perturbation import Scope
from verify.reload import Settings
from verify.submission import Submission
from verify.submission_audit import audit_submission

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


def levels(folder, heldout):
    found = audit_submission(Submission.open(folder), heldout.tokens[:120], SCOPE, SETTINGS)
    return found, {finding.rule: finding.level for finding in found.findings}


@pytest.mark.slow
def test_an_honest_submission(write_submission, heldout):
    found, level = levels(write_submission(), heldout)
    assert found.violations == ()
    undecided = {rule for rule, one in level.items() if one == "unknown"}
    assert undecided <= {"audit.state", "audit.bytes", "audit.side_channel"}
    assert found.coverage["window"] == {"length": 16, "stride": 8, "stated_length": None}
    assert found.coverage["vocab_size"] == 300


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
