"""Reload, re-score and judge a submission; trusts its files only as far as they prove themselves."""

from verify.budget import PARAMETER_GOLF, Budget
from verify.pipeline import examine, window_length
from verify.rescore import Settings
from verify.scoring.heldout import HeldOut
from verify.scoring.sliding import Score, Sliding, total
from verify.submission.folder import Submission
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
