"""The gallery of submissions: small folders that cheat, and honest ones; what `pgolf verify` says of them."""

from verify.submission_gallery import evading, free_bytes, memorised, rare_leaks, reading_ahead, revealing  # noqa: F401
from verify.submission_gallery.exhibits import FOLDERS

__all__ = ["FOLDERS"]
