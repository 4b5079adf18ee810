"""The compressors the challenge's scripts put around torch.save, found by content and undone within a size limit."""

import io
import lzma
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from codec.errors import EnvironmentLacks, InputError

SHUFFLED = b"BSHF"  # then one byte, the stride, then the shuffled bytes
ZIP = b"PK\x03\x04"
LEGACY = bytes.fromhex("6cfc9c46f9206aa85019")  # torch.save's magic number before 1.6, as its pickle spells it
DEPTH = 3  # compressor around shuffle around torch.save is two
DICTIONARY = 1 << 28  # bytes liblzma may use: xz -9 needs 65 MiB, a header can ask for 4 GiB
STEP = 1 << 8  # bytes of zstd input per call: at most 64 runs of 128 KiB, so 8 MiB beyond the limit


def expand(data: bytes, limit: int) -> tuple[bytes, tuple[str, ...]]:
    """(the torch.save file inside, what was around it from the outside in); a bare file comes back as it is.

    limit: bytes that any layer may expand to.

    Raises: InputError for data that is none of this, is damaged, or expands beyond the limit; EnvironmentLacks
    when it takes a package that is not installed.
    """
    layers: list[str] = []
    inner = data
    while not is_torch_file(inner):
        if len(layers) == DEPTH:
            raise _unknown(data)
        if inner.startswith(SHUFFLED):
            inner, name = _unshuffle(inner), SHUFFLED.decode()
        else:
            name, inner = _decompress(inner, limit, data)
        layers.append(name)
    return inner, tuple(layers)


def is_torch_file(data: bytes) -> bool:
    """Whether it begins as torch.save's files do, the zip ones or the older ones."""
    return data.startswith(ZIP) or LEGACY in data[:16]


class _Mismatch(Exception):
    """This compressor cannot have written the data; the text says why."""


class _Format(NamedTuple):
    """magic: first bytes, any of them.  expand: (data, limit) -> content, of at most limit + STEP * 32768 bytes."""

    name: str
    magic: tuple[bytes, ...]
    expand: Callable[[bytes, int], bytes]


def _decompress(data: bytes, limit: int, file: bytes) -> tuple[str, bytes]:
    """(name of the format, content).  Brotli has no magic number: it is tried on whatever no other format takes."""
    damage = ""
    for name, magic, expand_it in _FORMATS:
        if data.startswith(magic):
            try:
                return name, _within(limit, name, expand_it(data, limit))
            except _Mismatch as reason:
                damage = damage or f"is damaged {name} data ({reason})"
    try:
        return "brotli", _within(limit, "brotli", _brotli(data, limit))
    except (_Mismatch, EnvironmentLacks) as error:
        if damage:
            raise InputError(damage, hint="copy the file again") from None
        raise (error if isinstance(error, EnvironmentLacks) else _unknown(file)) from None


def _within(limit: int, name: str, content: bytes) -> bytes:
    if len(content) > limit:
        raise InputError(
            f"holds {name} data that expands beyond {limit:,} bytes",
            hint="submissions of 16 MB expand to about 40 MB, so it is none; read_any takes a larger limit",
        )
    return content


def _unknown(file: bytes) -> InputError:
    return InputError(
        f"is not a safetensors or llama2.c checkpoint, nor torch.save's, bare or inside zlib, zstd, xz, lzma or brotli "
        f"(it starts with {file[:8]!r})",
        hint="save the state dict with torch.save or safetensors",
    )


def _unshuffle(data: bytes) -> bytes:
    """Byte i came from lane i mod stride; the lanes are stored one after another.

    Source: openai/parameter-golf pull request 1716.
    """
    stride = max(data[4] if len(data) > 4 else 1, 1)
    lanes = np.frombuffer(data, np.uint8)[5:]
    mixed, at = np.empty_like(lanes), 0
    for lane in range(stride):
        places = mixed[lane::stride]
        places[:] = lanes[at : at + len(places)]
        at += len(places)
    return mixed.tobytes()


def _finished(content: bytes, limit: int, complete: bool, rest: bytes) -> bytes:
    """The content, once it is known to be over the limit or to end where the file ends."""
    if len(content) <= limit and not complete:
        raise _Mismatch("it ends early")
    if len(content) <= limit and rest:
        raise _Mismatch(f"{len(rest)} bytes follow its end")
    return content


def _zlib(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise _Mismatch(error) from None
    return _finished(content, limit, stream.eof, stream.unused_data)


def _lzma(data: bytes, limit: int) -> bytes:
    stream = lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=DICTIONARY)
    try:
        content = stream.decompress(data, limit + 1)
    except lzma.LZMAError as error:
        raise _Mismatch(error) from None
    return _finished(content, limit, stream.eof, stream.unused_data)


def _zstd(data: bytes, limit: int) -> bytes:
    from zstandard import ZstdDecompressor, ZstdError

    stream, content, source = ZstdDecompressor().decompressobj(), io.BytesIO(), io.BytesIO(data)
    try:
        while not stream.eof and content.tell() <= limit and (step := source.read(STEP)):
            content.write(stream.decompress(step))
    except ZstdError as error:
        raise _Mismatch(error) from None
    rest = stream.unused_data + source.read()
    return _finished(content.getvalue(), limit, stream.eof, rest)


def _brotli(data: bytes, limit: int) -> bytes:
    try:
        import brotli
    except ImportError:
        brotli = None
    if not hasattr(getattr(brotli, "Decompressor", None), "can_accept_more_data"):
        raise EnvironmentLacks(
            "is in no format with a known first byte, so perhaps brotli, which takes the package brotli, 1.2 or later",
            hint="pip install 'brotli>=1.2'",
        )
    stream = brotli.Decompressor()
    try:
        content: bytes = stream.process(data, output_buffer_limit=limit + 1)
    except brotli.error as error:
        raise _Mismatch(error) from None
    return _finished(content, limit, stream.is_finished(), b"")


_FORMATS = (
    _Format("zlib", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), _zlib),
    _Format("zstd", (b"\x28\xb5\x2f\xfd",), _zstd),
    _Format("xz", (b"\xfd7zXZ\0",), _lzma),
    _Format("lzma", (b"\x5d\0\0",), _lzma),
)
