"""The one place where foreign bytes are decompressed: bounded in output and memory, whatever the bytes say.

decompress    one stream of a named compressor
undo          one stream of the compressor that its first bytes name
expand        all that the challenge's scripts put around a torch.save file
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

from codec.errors import EnvironmentLacks, InputError

SHUFFLED = b"BSHF"  # then one byte, the stride, then the shuffled bytes
ZIP = b"PK\x03\x04"
LEGACY = bytes.fromhex("6cfc9c46f9206aa85019")  # torch.save's magic number before 1.6, as its pickle spells it
DEPTH = 3  # compressor around shuffle around torch.save is two
MEMORY = 1 << 28  # bytes a decoder may use by itself: xz -9 needs 65 MiB, a header can ask for 4 GiB
STEP = 1 << 8  # bytes of zstd input per call: at most 64 runs of 128 KiB, so 8 MiB beyond the limit
MAGIC = {  # first bytes -> compressor; brotli has none
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "lzma",
}


class Mismatch(InputError):
    """This compressor cannot have written the data; the message says why."""


class BeyondLimit(InputError):
    """The data expands beyond the limit of its reader."""


class Decoder(Protocol):
    """One stream, as the standard library's decompressors offer it."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    @property
    def unused_data(self) -> bytes:
        """What follows the end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most max_length bytes, or few more."""


def decompress(data: bytes, name: str, limit: int, *, memory: int = MEMORY, trailing: bool = False) -> bytes:
    """The content of one stream of the compressor `name`, a key of DECODERS.

    limit: bytes of content.  memory: bytes of the decoder's own.  trailing: whether anything may follow the stream.

    Raises: Mismatch for data that is no such stream, or a cut one; BeyondLimit; EnvironmentLacks for brotli when its
    package is missing.
    """
    return decompress_with(
        lambda: DECODERS[name](memory), _fitting_window(data, name, limit), name, limit, trailing=trailing
    )


def decompress_with(
    make: Callable[[], Decoder], data: bytes, name: str, limit: int, *, trailing: bool = False
) -> bytes:
    """As `decompress`, by a decoder of the caller's.  make: may refuse its settings as a decoder refuses data."""
    try:
        decoder = make()
        content = decoder.decompress(data, limit + 1)
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError, TypeError, OverflowError) as error:
        raise Mismatch(str(error)) from None
    if len(content) > limit:
        raise BeyondLimit(f"holds {name} data that expands beyond {limit:,} bytes")
    if not decoder.eof:
        raise Mismatch("it ends early")
    if decoder.unused_data and not trailing:
        raise Mismatch(f"{len(decoder.unused_data)} bytes are left over behind its end")
    return content


def _fitting_window(data: bytes, name: str, limit: int) -> bytes:
    """The stream with no larger LZMA dictionary than its content can use, which is what a decoder then allocates.

    `xz -9` asks for 64 MiB and other settings for up to 4 GiB, whatever they pack.  No distance reaches further back
    than the first byte, so the content is the same.
    Source: the .xz file format 1.1.0, section 3.1, and the LZMA specification, "File Format".
    """
    if name == "lzma" and len(data) > 13:
        window = min(int.from_bytes(data[1:5], "little"), max(limit, 1 << 12))
        return data[:1] + window.to_bytes(4, "little") + data[5:]
    size = 4 * (data[12] + 1) if name == "xz" and len(data) > 12 else 0
    header = bytearray(data[12 : 12 + size])
    if len(header) < 12 or header[1] & 3 or header[-4:] != zlib.crc32(header[:-4]).to_bytes(4, "little"):
        return data  # more filters than one, or no header: the decoder will say
    place = 2
    for flag in (0x40, 0x80):  # the sizes of the packed and of the plain bytes, if they are stated
        while header[1] & flag and place < size - 6:
            place += 1
            if header[place - 1] < 0x80:
                break
    if header[place : place + 2] != b"\x21\1":
        return data
    enough = next(bits for bits in range(41) if bits == 40 or (2 | bits & 1) << (bits // 2 + 11) >= limit)
    header[place + 2] = min(header[place + 2], enough)
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    return data[:12] + bytes(header) + data[12 + size :]


def undo(data: bytes, limit: int) -> tuple[str, bytes]:
    """(name of the compressor, content).  Brotli has no magic number: it is tried on whatever no other takes.

    Raises: InputError for damaged data, Mismatch when no compressor can have written it; BeyondLimit and
    EnvironmentLacks as `decompress`.
    """
    damage = ""
    if name := next((name for magic, name in MAGIC.items() if data.startswith(magic)), ""):
        try:
            return name, decompress(data, name, limit)
        except Mismatch as reason:
            damage = f"is damaged {name} data ({reason.message})"
    try:
        return "brotli", decompress(data, "brotli", limit)
    except (Mismatch, EnvironmentLacks) as error:
        if damage:
            raise InputError(damage, hint="copy the file again") from None
        if isinstance(error, EnvironmentLacks):
            raise
        raise Mismatch(f"is in no known format (it starts with {data[:8]!r})") from None


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
            try:
                name, inner = undo(inner, limit)
            except Mismatch:
                raise _unknown(data) from None
            except BeyondLimit as error:
                error.hint = "submissions of 16 MB expand to about 40 MB, so it is none; read_any takes a larger limit"
                raise
        layers.append(name)
    return inner, tuple(layers)


def is_torch_file(data: bytes) -> bool:
    """Whether it begins as torch.save's files do, the zip ones or the older ones."""
    return data.startswith(ZIP) or LEGACY in data[:16]


def has_brotli() -> bool:
    """Whether brotli is installed, in a version that can stop at a size limit."""
    try:
        import brotli
    except ImportError:
        return False
    return hasattr(getattr(brotli, "Decompressor", None), "can_accept_more_data")


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


class _Zstd:
    """One frame; zstandard's own decoders know no limit of output, so the input goes in by small steps."""

    def __init__(self, memory: int) -> None:
        from zstandard import ZstdDecompressor

        self._stream = ZstdDecompressor(max_window_size=memory).decompressobj()
        self.eof, self.unused_data = False, b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most 8 MiB more than max_length."""
        from zstandard import ZstdError

        content, source = io.BytesIO(), io.BytesIO(data)
        try:
            while not self._stream.eof and content.tell() < max_length and (step := source.read(STEP)):
                content.write(self._stream.decompress(step))
        except ZstdError as error:
            raise ValueError(str(error)) from None
        self.eof, self.unused_data = self._stream.eof, self._stream.unused_data + source.read()
        return content.getvalue()


class _Brotli:
    """One stream; it cannot have anything behind its end."""

    unused_data = b""

    def __init__(self, memory: int) -> None:
        if not has_brotli():
            raise EnvironmentLacks(
                "is in no format with a known first byte, so perhaps brotli, which takes the package brotli, 1.2 or "
                "later",
                hint="pip install 'brotli>=1.2'",
            )
        import brotli

        self._stream, self._error = brotli.Decompressor(), brotli.error
        self.eof = False

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most max_length bytes."""
        try:
            content: bytes = self._stream.process(data, output_buffer_limit=max_length)
        except self._error as error:
            raise ValueError(str(error)) from None
        self.eof = self._stream.is_finished()
        return content


DECODERS: dict[str, Callable[[int], Decoder]] = {  # name -> decoder that may use so many bytes of memory
    "zlib": lambda memory: zlib.decompressobj(),
    "gzip": lambda memory: zlib.decompressobj(31),
    "deflate": lambda memory: zlib.decompressobj(-15),
    "bz2": lambda memory: bz2.BZ2Decompressor(),
    "xz": lambda memory: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory),
    "lzma": lambda memory: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=memory),
    "zstd": _Zstd,
    "brotli": _Brotli,  # its windows are 16 MiB at most
}


def from_digits(digits: list[int], base: int) -> int:
    """The number of these digits, the highest first; by halves: one by one takes a time that grows with the square."""
    while len(digits) > 1:
        digits = [0] * (len(digits) % 2) + digits
        digits = [high * base + low for high, low in zip(digits[::2], digits[1::2], strict=True)]
        base *= base
    return digits[0] if digits else 0
