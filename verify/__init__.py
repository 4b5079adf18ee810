"""Reload, re-score and judge a submission; trusts its files only as far as they prove themselves."""

from codec.budget import PARAMETER_GOLF, Budget
from verify.facts import Facts
from verify.finding import Finding
from verify.folder_rules import folder_judges
from verify.pipeline import examine, judge, measure, window_length
from verify.rules import Rule
from verify.run_rules import run_judges
from verify.sandbox.launch import Settings
from verify.scoring.heldout import HeldOut
from verify.scoring.score import Score, total
from verify.scoring.sliding import Sliding
from verify.submission.folder import Submission
from verify.verdict import Verdict

__all__ = [
    "PARAMETER_GOLF",
    "Budget",
    "Facts",
    "Finding",
    "HeldOut",
    "Rule",
    "Score",
    "Settings",
    "Sliding",
    "Submission",
    "Verdict",
    "examine",
    "folder_judges",
    "judge",
    "measure",
    "run_judges",
    "total",
    "window_length",
]
