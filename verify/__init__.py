"""Reload, re-score and judge a submission; trusts its files only as far as they prove themselves."""

from codec.budget import PARAMETER_GOLF, Budget
from verify.finding import Finding
from verify.pipeline import examine, window_length
from verify.sandbox.launch import Settings
from verify.scoring.heldout import HeldOut
from verify.scoring.score import Score, total
from verify.scoring.sliding import Sliding
from verify.submission.folder import Submission
from verify.verdict import Verdict

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
