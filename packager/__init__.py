"""Checkpoint + recipe + script -> a submission folder that stays under a byte cap."""

from packager.foreign import Imported, read_any
from packager.minify import minify
from packager.source import Bundle, bundle
from packager.submission import CAP, Order, Submission, build_submission, plan_submission
from packager.wrapper import unwrap, wrap

__all__ = [
    "CAP",
    "Bundle",
    "Imported",
    "Order",
    "Submission",
    "build_submission",
    "bundle",
    "minify",
    "plan_submission",
    "read_any",
    "unwrap",
    "wrap",
]
