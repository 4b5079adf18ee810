"""The smallest stream that a script can open with one call: LZMA of many settings, or brotli."""

import lzma
from typing import Any

NICE_LENGTHS = (24, 32, 48, 64, 96, 128, 192, 273)
FINDERS = (lzma.MF_BT2, lzma.MF_BT3, lzma.MF_BT4)


def lzma_alone(data: bytes) -> bytes:
    """The shortest of 33 settings, in the smallest container that lzma.decompress detects.

    Text has no alignment, hence lp 0 and pb 0 or 1; how much context (lc) pays depends on the source.  With the best of
    these, the length that ends a search and the match finder give another 0.1 %; depth and mode give nothing.
    lc 0 with pb 0 is left out, so that no stream begins with a zero byte.
    """
    window = max(4096, 1 << (len(data) - 1).bit_length()) if data else 4096
    base = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window, "lp": 0}
    contexts = [{**base, "lc": lc, "pb": pb} for lc in range(5) for pb in range(2) if lc + pb]
    best = min(contexts, key=lambda one: len(_stream(data, one)))
    searches = [{**best, "nice_len": length, "mf": finder} for length in NICE_LENGTHS for finder in FINDERS]
    return min((_stream(data, one) for one in (best, *searches)), key=len)


def brotli_stream(data: bytes) -> bytes | None:
    """Of the best quality; None when the package is not installed."""
    try:
        import brotli
    except ImportError:
        return None
    streams = (brotli.compress(data, mode=mode, quality=11) for mode in (brotli.MODE_GENERIC, brotli.MODE_TEXT))
    return bytes(min(streams, key=len))


def _stream(data: bytes, settings: dict[str, Any]) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE, filters=[settings])
