"""The gallery of submissions: small folders that cheat, and honest ones; what `pgolf verify` says of them."""

# They register theirs, the honest ones first.
from verify.submission_gallery import memorised, rare_leaks, reading_ahead, revealing  # noqa: F401
from verify.submission_gallery.exhibits import FOLDERS

__all__ = ["FOLDERS"]
