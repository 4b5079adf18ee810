"""Artifact bytes -> arrays.  The library's decoder, and the very module carried inside submissions.

docs/format.md is the normative description.  Everything is integer arithmetic, so the same bytes give the
same arrays on every platform; nothing is allocated before its size has been checked.
"""

import json
import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from codec.errors import CodecError

MAGIC = b"PGA1"
PRECISION = 14  # frequencies of a table sum to 2**14: 0.0007 bits per weight off the ideal at 3.3 bits
STATE_FLOOR = 1 << 16  # a lane's state stays in [2**16, 2**32); it moves in 16-bit words
MAX_TABLES = 512  # 64 MiB of lookup; a full-size artifact uses about 60
MAX_WEIGHTS = 1 << 28  # 0.5 bits per weight at the 16 MB cap; a constant tensor costs no bits, so bytes bound nothing
MAX_TEXT = 1 << 22  # characters of header
LANE_WEIGHTS = 1 << 18  # for one lane at most: decoding takes 8 microseconds per step, 2 seconds of them
EIGHTHS = [65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194]  # round(2**16 * 2**(i/8))


class QuantizedTensor(NamedTuple):
    """levels: int8, any shape; scales: float16 (shape[0],) or float32 (1,) for one step for the whole tensor.

    column_steps: uint8 (columns,), None for all equal: the step of column j is that of the row times
    2**((column_steps[j] - 128) / 8).
    """

    levels: np.ndarray
    scales: np.ndarray
    column_steps: np.ndarray | None = None

    def dequantize(self) -> np.ndarray:
        """float32, same shape: level times the step of its column, which is exact, times the scale of its row."""
        rows = self.levels.reshape(len(self.scales), self.levels.size // max(len(self.scales), 1)).astype(np.float32)
        if self.column_steps is not None:
            rows *= column_scales(self.column_steps)
        with np.errstate(invalid="ignore", over="ignore"):  # a scale may be infinite in a forged artifact
            return (rows * self.scales.astype(np.float32)[:, None]).reshape(self.levels.shape)


def column_scales(column_steps: np.ndarray) -> np.ndarray:
    """uint8 (columns,), eighths of an octave, 128 = 1 -> float32 (columns,): 17 significant bits, by integers."""
    eighths = column_steps.astype(np.int64)
    scales: np.ndarray = np.ldexp(np.array(EIGHTHS, np.float32)[eighths & 7], (eighths >> 3) - 32)
    return scales


def decode(blob: bytes) -> dict[str, np.ndarray]:
    """Every tensor of an artifact by name; quantized and float16 ones as float32, others in their own dtype.

    Raises: CodecError for anything that is not a complete, undamaged artifact of this version.
    """
    tensors = unpack(blob)[1]
    distinct = {id(tensor): tensor for tensor in tensors.values()}  # ties stay one array
    floats = {key: _floats(tensor) for key, tensor in distinct.items()}
    return {name: floats[id(tensor)] for name, tensor in tensors.items()}


def _floats(tensor: QuantizedTensor | np.ndarray) -> np.ndarray:
    if isinstance(tensor, QuantizedTensor):
        return tensor.dequantize()
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor


def read_meta(blob: bytes) -> dict[str, Any]:
    """The JSON object stored beside the tensors: model config, tokenizer hash, recipe."""
    meta: dict[str, Any] = open_artifact(blob)[1]["meta"]
    return meta


def unpack(blob: bytes) -> tuple[dict[str, Any], dict[str, QuantizedTensor | np.ndarray]]:
    """(header, tensors by name) with quantized tensors left as levels and scales.

    Raises: CodecError as `decode`.
    """
    stream, header = open_artifact(blob)
    return header, read_tensors(stream, header)


class Stream:
    """rANS decoder over interleaved lanes: symbol i of a plane belongs to lane i mod lanes.

    frequencies: int64 (tables, 256), each row summing to 2**PRECISION.
    states: int64 (lanes,).  words: uint16.
    """

    def __init__(self, frequencies: np.ndarray, states: np.ndarray, words: np.ndarray) -> None:
        self.states, self.words, self.position = states, words.astype(np.int64), 0
        # One gather per symbol: slot -> symbol | frequency << 8 | slot - start << 24.
        packed = np.arange(256) | frequencies << 8 | (frequencies - np.cumsum(frequencies, 1)) << 24
        slots = np.empty((len(frequencies), 1 << PRECISION), np.int64)
        for row, entries, counts in zip(slots, packed, frequencies, strict=True):
            row[:] = np.repeat(entries, counts) + (np.arange(1 << PRECISION) << 24)
        self.slots = slots.ravel()

    def plane(self, table: int, count: int) -> np.ndarray:
        """Decode `count` symbols under one table -> uint8 (count,)."""
        return self.take(np.broadcast_to(table, count))

    def take(self, tables: np.ndarray) -> np.ndarray:
        """Decode one symbol per entry of `tables` (integer table numbers, (count,)) -> uint8 (count,)."""
        count, lanes = len(tables), len(self.states)
        symbols = np.empty(count, np.uint8)
        for start in range(0, count, lanes):
            index = tables[start : start + lanes].astype(np.int64)
            state = self.states[: len(index)]
            entry = self.slots[(index << PRECISION) + (state & (1 << PRECISION) - 1)]
            symbols[start : start + lanes] = entry & 255
            state = (entry >> 8 & 0xFFFF) * (state >> PRECISION) + (entry >> 24)
            low = np.flatnonzero(state < STATE_FLOOR)
            words = self.words[self.position : self.position + len(low)]
            if len(words) < len(low):
                raise CodecError("the artifact's stream ends early", hint="the file is damaged")
            state[low] = state[low] << 16 | words
            self.position += len(low)
            self.states[: len(index)] = state
        return symbols

    def finish(self) -> None:
        """Raises: CodecError unless every word was used and every lane is back where the encoder began."""
        if self.position != len(self.words) or (self.states != STATE_FLOOR).any():
            raise CodecError("the artifact's stream does not end where its header says", hint="the file is damaged")


def frequencies(logs: np.ndarray) -> np.ndarray:
    """logs: uint8, a table as stored, 0 = symbol absent, else its frequency in eighths of an octave.

    -> int64 (256,) summing to 2**PRECISION, every present symbol at least 1.  Integers only.
    """
    weights = np.zeros(256, np.int64)
    eighths = logs.astype(np.int64) - 1
    weights[: len(logs)] = np.where(eighths < 0, 0, np.array(EIGHTHS)[eighths & 7] << np.maximum(eighths, 0) // 8)
    if not weights.any() or logs.max() > 8 * 24:
        raise CodecError("the artifact holds an impossible frequency table", hint="the file is damaged")
    counts: np.ndarray = np.maximum((weights << PRECISION) // weights.sum(), weights > 0)
    counts[counts.argmax()] += (1 << PRECISION) - counts.sum()
    return counts


def open_artifact(blob: bytes, reader: type[Stream] = Stream) -> tuple[Stream, dict[str, Any]]:
    """Check length and checksum, read the tables, decode the header text -> (stream at the tensors, header)."""
    blob = bytes(blob)
    if blob[:4] != MAGIC:
        raise CodecError(
            f"starts with {blob[:4]!r}, an artifact of the version this decoder reads with {MAGIC!r}",
            hint="pass a model.bin of `pgolf pack`",
        )
    if len(blob) < 28:
        raise CodecError(f"has {len(blob)} bytes, an artifact has at least 28", hint="the file is damaged")
    text_length, table_bytes, lanes, word_count = struct.unpack_from("<4I", blob, 4)
    need = 20 + table_bytes + 4 * lanes + 2 * word_count + 4
    if len(blob) != need:
        raise CodecError(f"has {len(blob)} bytes, its first bytes promise {need}", hint="the file is damaged")
    if zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
        raise CodecError("checksum does not match", hint="the file is damaged")
    if not 0 < lanes <= 1 << 16 or text_length > MAX_TEXT or table_bytes > 1 << 18:
        raise CodecError("the artifact's sizes are outside the format's limits")
    tables, at = [np.full(256, 1, np.uint8)], 20  # table 0: uniform over bytes, never stored
    while at < 20 + table_bytes:
        tables.append(np.frombuffer(blob[at + 1 : at + 2 + blob[at]], np.uint8))
        at += blob[at] + 2
    if at != 20 + table_bytes or len(tables) > MAX_TABLES:
        raise CodecError("the artifact's frequency tables are outside the format's limits")
    states = np.frombuffer(blob, "<u4", lanes, at).astype(np.int64)
    words = np.frombuffer(blob, "<u2", word_count, at + 4 * lanes)
    stream = reader(np.stack([frequencies(table) for table in tables]), states, words)
    try:
        header = json.loads(stream.plane(min(1, len(tables) - 1), text_length).tobytes())
        return stream, {"meta": dict(header["meta"]), "forms": list(header["forms"]), "names": list(header["names"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CodecError(f"the artifact's header cannot be read ({error})") from None


def read_tensors(stream: Stream, header: dict[str, Any]) -> dict[str, QuantizedTensor | np.ndarray]:
    """Decode every tensor in header order, then check that the stream ends there."""
    try:
        tensors = _named(stream, header["forms"], header["names"])
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"the artifact's header contradicts itself ({error})") from None
    stream.finish()
    return tensors


def _named(stream: Stream, forms: list[Any], names: list[Any]) -> dict[str, QuantizedTensor | np.ndarray]:
    weights = sum(_weights(forms[form]) for _, _, form in names if form >= 0)
    if weights > min(MAX_WEIGHTS, LANE_WEIGHTS * len(stream.states)):
        raise ValueError(f"{weights} weights")
    tensors: dict[str, QuantizedTensor | np.ndarray] = {}
    order: list[QuantizedTensor | np.ndarray] = []
    name = ""
    for shared, suffix, form in names:
        name = name[:shared] + suffix
        # A negative form is a tie: the same tensor as an earlier one.
        order.append(_tensor(stream, *forms[form]) if form >= 0 else order[-1 - form])
        tensors[name] = order[-1]
    if len(tensors) != len(names):
        raise ValueError("a name occurs twice")
    return tensors


def _weights(form: list[Any]) -> int:
    """Of a tensor, with empty sides counted as 1: scales and classes take memory too."""
    kind, shape, planes, *model = form
    sizes = (*shape, *planes, *model[1:])
    whole = type(kind) is str and {type(number) for number in (*sizes, *model)} <= {int}
    if not whole or min(sizes, default=0) < 0 or max(sizes, default=0) > MAX_WEIGHTS:
        raise ValueError(f"form {form}")
    return math.prod(max(side, 1) for side in shape)


def _tensor(
    stream: Stream, kind: str, shape: list[int], planes: list[int], *model: int
) -> QuantizedTensor | np.ndarray:
    count = math.prod(shape)
    rows = shape[0] if model and kind != "all" else 1
    if kind not in ("row", "all"):
        low = [stream.plane(table, count) for table in planes]
        top = [_matrix(stream, rows, count // max(rows, 1), *model).view(np.uint8).ravel()] if model else []
        return _array(np.dtype(kind), low + top).reshape(shape)
    scales = _array(np.dtype("<f2" if kind == "row" else "<f4"), [stream.plane(table, rows) for table in planes])
    return QuantizedTensor(_matrix(stream, rows, count // max(rows, 1), *model).reshape(shape), scales)


def _array(dtype: np.dtype[Any], planes: list[np.ndarray]) -> np.ndarray:
    """The array whose items have these bytes, lowest first."""
    if dtype.kind not in "fiub" or dtype.itemsize != len(planes):
        raise ValueError(f"dtype {dtype}")
    return np.stack(planes, 1).ravel().view(dtype)


def _matrix(
    stream: Stream, rows: int, columns: int, lowest: int, base: int, row_table: int, column_table: int, *more: int
) -> np.ndarray:
    """int8 (rows, columns).  Table of an item: base plus the class of its part of the row plus that of its column."""
    *prediction, parts = more if len(more) % 2 else (*more, 1)
    if parts != 1 and not (0 < parts <= columns and columns % parts == 0):
        raise ValueError(f"{parts} parts")
    row = stream.plane(row_table, rows * parts) if row_table else np.zeros(1, np.uint8)
    column = stream.plane(column_table, columns) if column_table else np.zeros(columns, np.uint8)
    table = np.repeat(row.reshape(-1, parts), columns // parts, axis=1).astype(np.int16) + column + base
    multiples, references = _prediction(stream, rows, *prediction) if prediction else (column[:0], column[:0])
    levels = stream.take(np.broadcast_to(table, (rows, columns)).ravel()).reshape(rows, columns).astype(np.int16)
    levels += lowest
    predicted = np.flatnonzero(multiples)
    if (references >= predicted).any():
        raise ValueError("order of rows")
    for index, reference in zip(predicted, references, strict=True):
        said = (2 * (int(multiples[index]) - 9) * levels[reference] + 8) // 16
        levels[index] = (levels[index] + said + 128) % 256 - 128
    return levels.astype(np.int8)


def _prediction(stream: Stream, rows: int, table: int, high_table: int) -> tuple[np.ndarray, np.ndarray]:
    """(multiples in eighths plus 9, 0 = not predicted, of all rows; reference rows of the predicted ones)."""
    multiples = stream.plane(table, rows)
    low, high = (stream.plane(each, int(np.count_nonzero(multiples))) for each in (0, high_table))
    return multiples, low + high.astype(np.int64) * 256
