"""Reload, re-score and judge a submission; trusts its files only as far as they prove themselves.

    import verify
    submission = verify.Submission.open("submission")
    heldout = verify.HeldOut.read([Path("data/val_000000.bin")], Path("data/tokenizer.model"))
    verdict = verify.examine(submission, heldout, verify.Settings(length=verify.window_length(submission)))

A score is nats over the targets and the bytes that they stand for:

    >>> import verify
    >>> score = verify.Score(scorer="sliding", nats=1000.0, tokens=400, bytes=1000, windows=10, seconds=1.0)
    >>> score.loss
    2.5
    >>> round(score.bpb, 4)
    1.4427

The audit of a scorer has a name space of its own: `from verify.audit import Scope, audit`.
"""

from typing import TYPE_CHECKING

from codec.lazy import lazy

if TYPE_CHECKING:
    from verify.claims.group_rules import check_group
    from verify.claims.runs import Group, read_group
    from verify.claims.significance import Comparison, SeedScores, compare
    from verify.facts import Facts
    from verify.finding import Finding
    from verify.folder_rules import folder_judges
    from verify.pipeline import examine, judge, measure, window_length
    from verify.rules import RULES, Rule
    from verify.run_rules import run_judges
    from verify.sandbox.launch import Settings
    from verify.scoring.adaptation import Adaptation
    from verify.scoring.heldout import HeldOut
    from verify.scoring.score import Score, total
    from verify.scoring.scorer import Scored, Scorer
    from verify.scoring.sliding import Sliding
    from verify.scoring.token_bytes import TokenBytes
    from verify.submission.folder import Submission
    from verify.verdict import Verdict
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "verify.claims.group_rules": ("check_group",),
            "verify.claims.runs": ("Group", "read_group"),
            "verify.claims.significance": ("Comparison", "SeedScores", "compare"),
            "verify.finding": ("Finding",),
            "verify.pipeline": ("examine", "judge", "measure", "window_length"),
            "verify.sandbox.launch": ("Settings",),
            "verify.scoring.adaptation": ("Adaptation",),
            "verify.facts": ("Facts",),
            "verify.folder_rules": ("folder_judges",),
            "verify.rules": ("RULES", "Rule"),
            "verify.run_rules": ("run_judges",),
            "verify.scoring.heldout": ("HeldOut",),
            "verify.scoring.score": ("Score", "total"),
            "verify.scoring.scorer": ("Scored", "Scorer"),
            "verify.scoring.sliding": ("Sliding",),
            "verify.scoring.token_bytes": ("TokenBytes",),
            "verify.submission.folder": ("Submission",),
            "verify.verdict": ("Verdict",),
        },
    )

__all__ = [
    "RULES",
    "Adaptation",
    "Comparison",
    "Facts",
    "Finding",
    "Group",
    "HeldOut",
    "Rule",
    "Score",
    "Scored",
    "Scorer",
    "SeedScores",
    "Settings",
    "Sliding",
    "Submission",
    "TokenBytes",
    "Verdict",
    "check_group",
    "compare",
    "examine",
    "folder_judges",
    "judge",
    "measure",
    "read_group",
    "run_judges",
    "total",
    "window_length",
]
