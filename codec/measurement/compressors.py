"""What the field compresses weights with, to measure against: general compressors on the same levels and scales."""

import lzma
import zlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from codec.decoder import QuantizedTensor
from codec.entropy.level_tables import level_bits
from codec.entropy.planes import arrays_of, coded_levels
from codec.errors import EnvironmentLacks

PIECE = 4096  # bytes
Tensors = Mapping[str, QuantizedTensor | np.ndarray]


class Compressor(NamedTuple):
    """A general compressor; decompress(compress(data)) == data."""

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


def baseline_bytes(name: str, tensors: Tensors) -> int:
    """What one of BASELINES needs for the same levels, scales and plain arrays.

    Raises: EnvironmentLacks when its package is not installed.
    """
    if name == "bit-packing":
        return packed_bytes(tensors)
    return len(COMPRESSORS[name].compress(plain_bytes(tensors)))


def sampled_bytes(name: str, tensors: Tensors, sample: int) -> int:
    """About what `baseline_bytes` gives, from a sample: pieces of 4 KiB, evenly spread over the same bytes.

    sample: bytes to compress.  Raises: as `baseline_bytes`.
    """
    data = plain_bytes(tensors)
    pieces = max(1, sample // PIECE)
    if len(data) <= 2 * pieces * PIECE or name not in COMPRESSORS:
        return baseline_bytes(name, tensors)
    starts = [(len(data) - PIECE) * i // (2 * max(pieces - 1, 1)) * 2 for i in range(pieces)]  # even, as scales are
    part = b"".join(data[start : start + PIECE] for start in starts)
    return round(len(COMPRESSORS[name].compress(part)) * len(data) / len(part))


def installed(name: str) -> bool:
    """Whether one of BASELINES can run: brotli is an extra."""
    return not name.startswith("brotli") or find_spec("brotli") is not None


def plain_bytes(tensors: Tensors) -> bytes:
    """In name order levels, then scales, then steps, or the plain array: what a compressor gets.

    Levels have one byte each.  Those of a trellis are halved, since its states tell the rest, and have as many bytes as
    the farthest of a tensor needs.
    No container around it, which is kinder to the peers than torch.save (about 0.5 kB per tensor before compression).
    """
    parts: list[bytes] = []
    for name in sorted(tensors):
        tensor = tensors[name]
        arrays = arrays_of(tensor)
        if isinstance(tensor, QuantizedTensor) and tensor.trellis:
            halves = coded_levels(tensor)
            arrays[0] = halves.astype(
                "<i1" if level_bits(halves) <= 8 else "<i2" if level_bits(halves) <= 16 else "<i4"
            )
        parts.extend(np.ascontiguousarray(array).tobytes() for array in arrays)
    return b"".join(parts)


def packed_bytes(tensors: Tensors) -> int:
    """Levels at the fewest two's complement bits that hold all of their tensor, scales and plain arrays as they are.

    Levels of a trellis are halved.  Steps as they are, too, but equal ones of columns once: matrices of one input share
    them.
    """
    total = 0
    steps: set[bytes] = set()
    for tensor in tensors.values():
        if isinstance(tensor, QuantizedTensor):
            levels = coded_levels(tensor)
            total += -(-levels.size * level_bits(levels) // 8) + tensor.scales.nbytes
            total += 0 if tensor.row_steps is None else tensor.row_steps.nbytes
            if tensor.column_steps is not None:
                steps.add(tensor.column_steps.tobytes())
        else:
            total += tensor.nbytes
    return total + sum(map(len, steps))


def shuffle(data: bytes) -> bytes:
    """Bytes at even positions, then those at odd ones: halves of 16-bit numbers apart.

    Source: openai/parameter-golf pull request 1716, which does so over the whole file before brotli.
    """
    return data[::2] + data[1::2]


def unshuffle(data: bytes) -> bytes:
    """The inverse of `shuffle`."""
    mixed = bytearray(len(data))
    half = (len(data) + 1) // 2
    mixed[::2], mixed[1::2] = data[:half], data[half:]
    return bytes(mixed)


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=22).compress(data)


def _unzstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompress(data)


def _brotli() -> Any:
    try:
        import brotli
    except ImportError:
        raise EnvironmentLacks(
            "the brotli package is missing", hint="pip install 'parameter-golf-kit[brotli]'"
        ) from None
    return brotli


def _brotli_11(data: bytes) -> bytes:
    compressed: bytes = _brotli().compress(data, quality=11, lgwin=24)  # the widest window the format has
    return compressed


def _unbrotli(data: bytes) -> bytes:
    plain: bytes = _brotli().decompress(data)
    return plain


COMPRESSORS: dict[str, Compressor] = {
    "zlib-9": Compressor(lambda data: zlib.compress(data, 9), zlib.decompress),
    "lzma-9e": Compressor(lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    "zstd-22": Compressor(_zstd, _unzstd),
    "brotli-11": Compressor(_brotli_11, _unbrotli),
    "brotli-11-shuffle": Compressor(lambda data: _brotli_11(shuffle(data)), lambda data: unshuffle(_unbrotli(data))),
}
FALLBACK = "zstd-22"  # always there
SLOW = ("lzma-9e", "brotli-11", "brotli-11-shuffle")  # minutes for 36 M weights
BASELINES = ("bit-packing", *COMPRESSORS)
