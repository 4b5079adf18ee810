"""The coders that bench_codec.py races: codec.measurement.compressors and a few that only the benchmark needs.

zpaq stands in for lrzip -z, the coder of pull request 1855: lrzip's zpaq stage made no progress where it was tried.
NNCodec (ISO/IEC 15938-17) quantizes by itself, so it is compared by rate and distortion instead (`nncodec_points`).
"""

import re
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import EnvironmentLacks
from codec.measurement.compressors import COMPRESSORS, Compressor, Tensors, plain_bytes

QUANTIZER_PARAMETERS = range(-4, -33, -4)  # step 2**(qp / 4): 1.5 to 7.5 bits per weight of a trained model
QUICK = ("zlib-9", "zstd-22", "brotli-11")
LARGE = ("zlib-9", "zstd-22", "brotli-11-shuffle", "constriction")  # the others take 2 to 5 minutes for 36 M weights
OPTIONAL = ("brotli", "constriction", "nncodec", "zpaq")


class Peer(NamedTuple):
    """decode(encode(tensors), tensors) == layout(tensors).  Shapes and names are known to the decoder for free."""

    encode: Callable[[Tensors], bytes]
    decode: Callable[[bytes, Tensors], bytes]
    layout: Callable[[Tensors], bytes] = plain_bytes


def installed_peers(names: tuple[str, ...] = ()) -> dict[str, Peer]:
    """Those of `names` (all when empty) whose package is here."""
    peers = {name: _of_bytes(each) for name, each in COMPRESSORS.items() if "brotli" not in name or find_spec("brotli")}
    if find_spec("zpaq"):
        peers |= {"zpaq-3": _of_bytes(_zpaq(3)), "zpaq-5": _of_bytes(_zpaq(5))}
        peers["zpaq-5-roles"] = _of_bytes(_zpaq(5), role_bytes)
    if find_spec("constriction"):
        peers["constriction"] = Peer(_constriction_encode, _constriction_decode)
    return {name: peer for name, peer in peers.items() if not names or name in names}


def role_bytes(tensors: Tensors) -> bytes:
    """As `plain_bytes`, but tensors of equal role in all layers side by side, and their levels column by column.

    Source: openai/parameter-golf pull request 1855, without its sorting of similar rows.
    """
    quantized = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, QuantizedTensor)}
    ordered = sorted(quantized, key=lambda name: (re.sub(r"\d+", "", name), name))
    levels = [np.ascontiguousarray(quantized[name].levels.T).tobytes() for name in ordered]
    rest = {name: tensor for name, tensor in tensors.items() if name not in quantized}
    return b"".join([*levels, *(quantized[name].scales.tobytes() for name in ordered), plain_bytes(rest)])


class NNCodecPoint(NamedTuple):
    """qp: the quantizer parameter.  bytes: of the stream, names and shapes included.  snr_db: over all weights.

    tensors: float32 by name, what the stream decodes to.  Seconds are of processor time.
    """

    qp: int
    bytes: int
    snr_db: float
    encode_seconds: float
    decode_seconds: float
    tensors: dict[str, np.ndarray]

    def figures(self) -> dict[str, float]:
        """All but the tensors, by name."""
        figures = self._asdict()
        del figures["tensors"]
        return figures


def nncodec_points(
    tensors: Mapping[str, np.ndarray], parameters: Iterable[int] = QUANTIZER_PARAMETERS
) -> Iterator[NNCodecPoint]:
    """Rate and distortion of NNCodec with dependent quantization, one quantizer parameter for all matrices.

    tensors: float arrays.  parameters: in turn; the step is 2**(parameter / 4).
    Raises: EnvironmentLacks where NNCodec is not installed.
    """
    nnc = _nncodec()
    # NNCodec takes no 0-d arrays; what is not a matrix it quantizes much finer (its parameter -75).
    arrays = {name: np.atleast_1d(array).astype(np.float32) for name, array in tensors.items() if array.size}
    signal = sum(float((array.astype(np.float64) ** 2).sum()) for array in arrays.values())
    options = {"use_dq": True, "row_skipping": True, "return_bitstream": True, "verbose": False}
    for parameter in parameters:
        with tempfile.NamedTemporaryFile(suffix=".nnc") as file:
            started = time.process_time()
            stream = nnc.compress(dict(arrays), bitstream_path=file.name, qp=parameter, **options)
        encoded = time.process_time()
        decompressed = nnc.decompress(stream)
        decoded = time.process_time()
        back = {name: np.asarray(decompressed[name], np.float32).reshape(array.shape) for name, array in arrays.items()}
        noise = sum(float(((back[name].astype(np.float64) - array) ** 2).sum()) for name, array in arrays.items())
        yield NNCodecPoint(
            qp=parameter,
            bytes=len(stream),
            snr_db=float(10 * np.log10(signal / noise)),
            encode_seconds=encoded - started,
            decode_seconds=decoded - encoded,
            tensors={
                name: back[name].reshape(array.shape) if array.size else array.astype(np.float32)
                for name, array in tensors.items()
            },
        )


def _of_bytes(compressor: Compressor, layout: Callable[[Tensors], bytes] = plain_bytes) -> Peer:
    return Peer(
        lambda tensors: compressor.compress(layout(tensors)), lambda blob, _: compressor.decompress(blob), layout
    )


def _zpaq(level: int) -> Compressor:
    import zpaq

    return Compressor(
        lambda data: zpaq.compress(data, level=level, threads=1), lambda blob: zpaq.decompress(blob, threads=1)
    )


def _constriction_encode(tensors: Tensors) -> bytes:
    """Static ANS, a table per tensor; counts (exact), scales and plain arrays through brotli.

    The model is floating point, so it is a bound for the field's coders rather than a portable format.
    """
    from constriction import stream

    coder, counts, rest = stream.stack.AnsCoder(), [], {}
    for name in sorted(tensors, reverse=True):
        tensor = tensors[name]
        rest[name] = tensor.scales if isinstance(tensor, QuantizedTensor) else tensor
        if isinstance(tensor, QuantizedTensor) and tensor.levels.size:
            symbols = tensor.levels.ravel().astype(np.int32) + 128
            counts.append(np.bincount(symbols, minlength=256).astype("<u4"))
            coder.encode_reverse(symbols, _categorical(counts[-1]))
    tables = np.array(counts, "<u4").reshape(-1, 256)[::-1]
    side = COMPRESSORS["brotli-11"].compress(tables.tobytes() + plain_bytes(rest))
    return struct.pack("<I", len(side)) + side + coder.get_compressed().astype("<u4").tobytes()


def _constriction_decode(blob: bytes, tensors: Tensors) -> bytes:
    from constriction import stream

    length = struct.unpack_from("<I", blob)[0]
    side = COMPRESSORS["brotli-11"].decompress(blob[4 : 4 + length])
    coder = stream.stack.AnsCoder(np.frombuffer(blob, "<u4", offset=4 + length).astype(np.uint32))
    coded = [t for t in tensors.values() if isinstance(t, QuantizedTensor) and t.levels.size]
    tables = iter(np.frombuffer(side, "<u4", 256 * len(coded)).reshape(-1, 256))
    position, parts = 1024 * len(coded), []
    for name in sorted(tensors):
        tensor = tensors[name]
        plain = tensor.scales if isinstance(tensor, QuantizedTensor) else tensor
        if isinstance(tensor, QuantizedTensor) and tensor.levels.size:
            symbols = coder.decode(_categorical(next(tables)), tensor.levels.size)
            parts.append((symbols - 128).astype(np.int8).tobytes())
        parts.append(side[position : position + plain.nbytes])
        position += plain.nbytes
    return b"".join(parts)


def _categorical(counts: np.ndarray) -> Any:
    from constriction import stream

    return stream.model.Categorical(counts / counts.sum(), perfect=False)


def _nncodec() -> Any:
    """The module nncodec.nnc; what its import drags in for image data sets and federated learning is replaced by mocks.

    Coding weights touches none of it, so the mocks are gone again afterwards.
    """
    import sys
    from unittest import mock

    lacking = EnvironmentLacks("the package nncodec is missing", hint="pip install 'nncodec>=2.1'")
    if not find_spec("nncodec"):
        raise lacking
    mocked: list[str] = []
    try:
        for _ in range(50):  # each failure names one missing module; version 2.1.3 lacks seven without its extras
            try:
                from nncodec import nnc
            except ModuleNotFoundError as error:
                mocked.append(str(error.name))
                sys.modules[mocked[-1]] = mock.MagicMock(__path__=[], __spec__=None)
            else:
                return nnc
        raise lacking
    finally:
        for name in mocked:
            del sys.modules[name]
