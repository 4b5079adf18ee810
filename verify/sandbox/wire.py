"""Messages between verify and the process that runs a submission: a JSON object and, with some, an array's bytes."""

import json
import math
import struct
from typing import IO, Any

import numpy as np

from codec.errors import InputError

HEADER = struct.Struct("<II")  # bytes of JSON, arrays that follow it (0 or 1)
MAX_JSON = 1 << 22  # 200 tensors' names and hashes are 30 kB
Shape = tuple[int, ...]


def send(pipe: IO[bytes], message: dict[str, Any], array: np.ndarray | None = None) -> None:
    """Write one message; its array goes along as raw little-endian values, shape and dtype in the JSON."""
    if array is not None:
        array = np.ascontiguousarray(array)
        message = {**message, "shape": array.shape, "dtype": array.dtype.name}
    text = json.dumps(message).encode()
    pipe.write(HEADER.pack(len(text), 0 if array is None else 1) + text)
    if array is not None:
        pipe.write(array.data.cast("B") if array.size else b"")
    pipe.flush()


def receive(pipe: IO[bytes], dtype: str = "", limit: int = 0) -> tuple[dict[str, Any], np.ndarray | None]:
    """Read one message.  dtype, limit: what its array must be, and how many bytes it may have; none is read otherwise.

    Raises: EOFError when the other side is gone; InputError for anything but such a message.
    """
    length, arrays = HEADER.unpack(_exactly(pipe, HEADER.size))
    if length > MAX_JSON or arrays > 1:
        raise InputError("the script's process answers something else than messages")
    try:
        message = json.loads(_exactly(pipe, length))
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise InputError("the script's process answers something else than messages")
    if not arrays:
        return message, None
    shape, have = message.get("shape"), message.get("dtype")
    size = _size(shape, dtype)
    if have != dtype or not 0 <= size <= limit:
        raise InputError(
            f"the script's process answers with an array of {have!s:.20}, {shape!s:.60}; need {dtype or 'none'} of at "
            f"most {limit:,} bytes"
        )
    data = np.empty(size, np.uint8)  # takes memory only as bytes arrive
    _fill(pipe, data.data)
    return message, data.view(dtype).reshape(shape)


def _size(shape: Any, dtype: str) -> int:
    """Bytes of an array, -1 for a shape that is none."""
    if not isinstance(shape, list) or len(shape) > 4 or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        return -1
    return math.prod(shape) * np.dtype(dtype).itemsize if dtype else -1


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _fill(pipe: IO[bytes], view: memoryview) -> None:
    filled = 0
    while filled < len(view):
        count = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        filled += count
