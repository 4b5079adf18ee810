"""The one decompressor: every format, and its bounds of output, memory and what may follow the stream."""

import bz2
import gzip
import lzma
import zlib

import brotli
import pytest
import zstandard

from codec.errors import InputError
from codec.storage.decompress import DECODERS, BeyondLimit, Mismatch, decompress, decompress_with, undo

DATA = bytes(range(256)) * 40
RAW = [{"id": lzma.FILTER_LZMA2, "preset": 6}]


def deflated(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


COMPRESS = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "deflate": deflated,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": zstandard.compress,
    "brotli": brotli.compress,
}


@pytest.mark.parametrize("name", DECODERS)
def test_content_and_limits_are_exact(name):
    packed = COMPRESS[name](DATA)
    assert decompress(packed, name, len(DATA)) == DATA
    with pytest.raises(BeyondLimit, match=rf"holds {name} data that expands beyond 10,239 bytes"):
        decompress(packed, name, len(DATA) - 1)
    with pytest.raises(Mismatch):
        decompress(packed[:-1], name, len(DATA))
    with pytest.raises(Mismatch):
        decompress(b"no compressor wrote this", name, len(DATA))


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "brotli"])  # which can tell no end
def test_what_follows_is_refused_unless_allowed(name):
    packed = COMPRESS[name](DATA) + b"more"
    with pytest.raises(Mismatch, match="4 bytes are left over behind its end"):
        decompress(packed, name, len(DATA))
    assert decompress(packed, name, len(DATA), trailing=True) == DATA


@pytest.mark.parametrize("name", ["xz", "lzma", "zstd"])
def test_a_header_that_asks_for_much_memory_is_refused(name):
    """64 MiB of window: within the default bounds, beyond smaller ones."""
    window = {"id": lzma.FILTER_LZMA2 if name == "xz" else lzma.FILTER_LZMA1, "dict_size": 1 << 26}
    if name == "zstd":
        parameters = zstandard.ZstdCompressionParameters(window_log=26)
        packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        packed = packed.compress(DATA) + packed.flush()  # of unknown size, so that the window stands in the header
    else:
        packed = lzma.compress(DATA, lzma.FORMAT_XZ if name == "xz" else lzma.FORMAT_ALONE, filters=[window])
    assert decompress(packed, name, len(DATA)) == DATA
    limit = len(DATA)
    if name != "zstd":  # no larger window is taken than the content may need
        assert decompress(packed, name, limit, memory=1 << 24) == DATA
        limit = 1 << 25
    with pytest.raises(Mismatch):
        decompress(packed, name, limit, memory=1 << 24)


def test_a_decoder_of_ones_own():
    packed = lzma.compress(DATA, lzma.FORMAT_RAW, filters=RAW)
    make = lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=RAW)  # noqa: E731
    assert decompress_with(make, packed, "raw lzma", len(DATA)) == DATA
    with pytest.raises(Mismatch):
        decompress_with(lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": 1}]), packed, "raw", 1 << 20)


def test_the_compressor_is_found_by_its_first_bytes():
    for name in ("zlib", "zstd", "xz", "lzma", "brotli"):
        assert undo(COMPRESS[name](DATA), len(DATA)) == (name, DATA)
    with pytest.raises(InputError, match=r"is damaged zlib data \(it ends early\); copy the file again"):
        undo(zlib.compress(DATA)[:-1], len(DATA))
    with pytest.raises(Mismatch, match="is in no known format"):
        undo(b"hello", len(DATA))
