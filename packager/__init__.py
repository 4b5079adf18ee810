"""Checkpoint + recipe + script -> a submission folder that stays under a byte cap."""

from packager.minify import minify
from packager.source import Bundle, bundle
from packager.submission import CAP, Order, Submission, build_submission, plan_submission
from packager.wrapper import unwrap, wrap

__all__ = [
    "CAP",
    "Bundle",
    "Order",
    "Submission",
    "build_submission",
    "bundle",
    "minify",
    "plan_submission",
    "unwrap",
    "wrap",
]
