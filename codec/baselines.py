"""What the field compresses weights with, to measure against: general compressors on the same levels and scales."""

import lzma
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import EnvironmentLacks


def plain_bytes(tensors: Mapping[str, QuantizedTensor | np.ndarray]) -> bytes:
    """Levels one byte each, then scales, then plain arrays, in name order: what a peer is given.

    No container around it, which is kinder to the peers than torch.save (about 0.5 kB per tensor before compression).
    """
    parts: list[bytes] = []
    for name in sorted(tensors):
        tensor = tensors[name]
        arrays = tensor if isinstance(tensor, QuantizedTensor) else (tensor,)
        parts.extend(np.ascontiguousarray(array).tobytes() for array in arrays)
    return b"".join(parts)


def _zstd(data: bytes) -> int:
    import zstandard

    return len(zstandard.ZstdCompressor(level=22).compress(data))


def _brotli(data: bytes) -> int:
    try:
        import brotli
    except ImportError:
        raise EnvironmentLacks(
            "the brotli package is missing", hint="pip install 'parameter-golf-kit[brotli]'"
        ) from None
    return len(brotli.compress(data, quality=11, lgwin=24))


BASELINES: dict[str, Callable[[bytes], int]] = {
    "zlib-9": lambda data: len(zlib.compress(data, 9)),
    "lzma-9e": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    "zstd-22": _zstd,
    "brotli-11": _brotli,
}
