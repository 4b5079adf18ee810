"""The audit drives a script that adapts by itself as any other scorer: honest ones pass, a peek fails by its rules."""

import numpy as np
import pytest

from verify.audit.perturbations import Scope
from verify.audit.submission_audit import audit_submission
from verify.sandbox.launch import Settings
from verify.scoring.token_bytes import BOS
from verify.submission.folder import Submission
from verify.submission_gallery import FOLDERS
from verify.submission_gallery.stage import Stage, build_stage

pytestmark = pytest.mark.slow  # about 150 runs each
IDS = 24  # a vocabulary this small makes a sum over it 24 runs
SCOPE = Scope(cuts=12, coded=4, sums=4)
SETTINGS = Settings(length=16, stride=8, batch=4, threads=1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return build_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def levels(stage, tmp_path):
    """Rule -> level, of a folder of the gallery with a table and a text of few ids, its chunks small like the text."""

    def found(name: str, changes: dict[str, str] | None = None) -> dict[str, str]:
        folder = tmp_path / "submission"
        FOLDERS[name].change(folder, stage)
        text = (folder / "train_gpt.py").read_text().replace("= 512, 32, 4, 3, 2.0", "= 32, 16, 1, 2, 2.0")
        for old, new in (changes or {}).items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        table = np.random.default_rng(3).normal(0, 1, (IDS, IDS)).astype(np.float32)
        stage.write(folder, text, {"table": table})
        words = np.resize([4, 5, 6, 7, 8, 4, 5, 9, 6, 7, 8], 29)  # repeated, so that counts have something to say
        tokens = np.concatenate([[BOS, *words], [BOS, *words[:16]], [BOS, *words[3:]], [BOS, *words[:16]]])
        audit = audit_submission(Submission.open(folder), tokens, SCOPE, SETTINGS)
        assert audit.coverage["score"] == "own"
        return {finding.rule: finding.level for finding in audit.findings}

    return found


@pytest.mark.parametrize(
    "name",
    [
        "reveal: score-first SGD",
        "reveal: LoRA inside documents",
        "reveal: n-gram tilt",
        "reveal: normalized n-gram mixture",
    ],
)
def test_nobody_honest_is_accused(levels, name):
    """Every check passes, those of states too, which name whatever the object holds; bytes are counted elsewhere."""
    assert {rule: level for rule, level in levels(name).items() if level != "pass"} == {"audit.bytes": "unknown"}


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("reveal: hint gated by the target", {"audit.prefix", "audit.self_target", "audit.kraft"}),
        ("reveal: trained before the commit", {"audit.prefix", "audit.self_target"}),
        ("reveal: the better of two", {"audit.prefix", "audit.self_target", "audit.kraft"}),
        ("reveal: mixture of the gold token only", {"audit.prefix", "audit.self_target", "audit.kraft"}),
        ("reveal: learned from requests", {"audit.batch"}),
    ],
)
def test_a_peek_fails_by_its_rules(levels, name, rules):
    found = levels(name)
    assert {rule for rule in found if found[rule] in ("fail", "warn")} >= rules


def test_the_order_of_a_queue_is_told(levels):
    """Nothing fails: what an order by the lengths of unread documents gives away is named."""
    queue = {'"documents": True}': '"documents": True, "order": "shortest"}', "if ids[-1] == BOS:": "if ids is None:"}
    found = levels("reveal: LoRA inside documents", queue)
    assert "fail" not in found.values()
    assert (found["audit.coverage"], found["audit.structure"]) == ("warn", "warn")


def test_what_is_kept_for_the_next_run_shows(levels):
    """Every run begins with a new object; what the script keeps outside of it is found."""
    kept = {
        "self.followed: defaultdict[Pair, Counter[int]] = defaultdict(Counter)": "self.followed = KEPT",
        "BETA, LEAST = 1.5, 2": "BETA, LEAST, KEPT = 1.5, 2, defaultdict(Counter)",
    }
    assert levels("reveal: n-gram tilt", kept)["audit.determinism"] == "fail"
