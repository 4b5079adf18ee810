"""Checkpoint + recipe + script -> a submission folder that stays under a byte cap."""

from packager.importers.imported import Imported
from packager.importers.read_any import read_any
from packager.script.bundle import Bundle, bundle
from packager.script.minify import minify
from packager.script.wrapper import unwrap, wrap
from packager.submission import Order, Submission, build_submission, plan_submission

__all__ = [
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
