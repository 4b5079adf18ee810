"""Reload, re-score and judge a submission; trusts its files only as far as they prove themselves."""

from verify.budget import PARAMETER_GOLF, Budget
from verify.examination import examine, window_length
from verify.heldout import HeldOut
from verify.reload import Settings
from verify.scorers import Score, Sliding, total
from verify.submission import Submission
from verify.verdict import Finding, Verdict

__all__ = [
    "PARAMETER_GOLF",
    "Budget",
    "Finding",
    "HeldOut",
    "Score",
    "Settings",
    "Sliding",
    "Submission",
    "Verdict",
    "examine",
    "total",
    "window_length",
]
