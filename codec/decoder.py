"""Artifact bytes -> arrays.  The library's decoder, and the very module carried inside submissions.

docs/format.md is the normative description.  Everything is integer arithmetic, so the same bytes give the
same arrays on every platform; nothing is allocated before its size has been checked.
Parameters are positional only, so that packing can shorten their names: 99 bytes of every submission.
"""

import json
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from codec.errors import CodecError

MAGIC = b"PGA1"
PRECISION = 14  # frequencies of a table sum to 2**14: 0.0007 bits per weight off the ideal at 3.3 bits
STATE_FLOOR = 1 << 16  # a lane's state stays in [2**16, 2**32); it moves in 16-bit words
MAX_TABLES = 512  # 64 MiB of lookup; a full-size artifact uses about 60
MAX_SIDE = 1 << 28
MAX_BYTES = (
    1 << 29
)  # of all tensors; at 0.5 bits per weight 16 MB hold half as many weights, of 2 bytes as `size` counts
MAX_TEXT = 1 << 20  # characters of header; 3,000 tensors have 60,000
STEP = 512  # symbols that take as long as a step of all lanes, 9 microseconds
WORK = 1 << 17  # steps that a file of few bytes may ask for, one second; each word adds half a step
MALFORMED = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)  # what lying headers cause
DAMAGED = "the file is damaged"
# Kinds of quantized tensors: dtype of the scales.
SCALES = {"row": "<f2", "row*": "<f2", "row=": "<f2", "all": "<f4", "trellis": "<f4"}
STEPS = {"row*": 1, "trellis": 2}  # tables of steps
# Names of the numbers that describe the matrix of a form, by how many there are.
MATRIX = "base row_table column_table "
PREDICTED = "multiple_table high_table "
NUMBERS = {
    0: "",
    4: "lowest " + MATRIX,
    5: "lowest " + MATRIX + "segments",
    6: "lowest " + MATRIX + PREDICTED,
    7: "lowest " + MATRIX + PREDICTED + "segments",
    10: MATRIX + "segments if_odd if_half_odd restart odd_tables far_table earlier",
}
EIGHTHS = [round(2 ** (16 + eighth / 8)) for eighth in range(8)]  # none lies within 0.01 of a half


class Trellis(NamedTuple):
    """Which levels a column may hold: even ones where its state is even, odd ones elsewhere; row by row.

    if_odd, if_half_odd: what moves the state; 0 and 0 allow even levels only, a uniform quantizer.
    restart: after so many rows every state is 0 again; at least 1.
    """

    if_odd: int
    if_half_odd: int
    restart: int

    def after(self, states: np.ndarray, levels: np.ndarray, /) -> np.ndarray:
        """The states of the columns behind a row of levels, integers (columns,)."""
        return states >> 1 ^ (levels & 1) * self.if_odd ^ (levels >> 1 & 1) * self.if_half_odd


class QuantizedTensor(NamedTuple):
    """levels: int8, any shape; scales: float16 (shape[0],) or float32 (1,) for one step for the whole tensor.

    column_steps: uint8 (columns,), None for all equal: the step of column j is that of the row times
    2**((column_steps[j] - 128) / 8).
    trellis: None, or levels are int32, and scales float32 (1,).
    row_steps: of a trellis, uint8 (rows,), as column_steps.
    """

    levels: np.ndarray
    scales: np.ndarray
    column_steps: np.ndarray | None = None
    row_steps: np.ndarray | None = None
    trellis: Trellis | None = None

    @property
    def rows(self) -> int:
        """Of the matrix: shape[0], but 1 where one scale is for all, or for a vector."""
        return self.levels.shape[0] if self.trellis and self.levels.ndim > 1 else len(self.scales)

    def dequantize(self) -> np.ndarray:
        """float32, same shape: level times the steps of its column and row, which is exact, times the scale."""
        rows = self.levels.reshape(self.rows, self.levels.size // max(self.rows, 1))
        values: np.ndarray = rows.astype(np.float64 if self.trellis else np.float32)
        if self.column_steps is not None:
            values *= octaves(self.column_steps)
        if self.row_steps is not None:
            values *= octaves(self.row_steps)[:, None]
        with np.errstate(all="ignore"):  # a scale may be infinite in a forged artifact
            values *= self.scales.astype(np.float32)[:, None]
            return values.astype(np.float32).reshape(self.levels.shape)


def octaves(steps: np.ndarray, /) -> np.ndarray:
    """uint8 (count,), eighths of an octave, 128 = 1 -> float32 (count,): 17 significant bits, by integers."""
    eighths = np.arange(256)
    scales: np.ndarray = np.ldexp(np.array(EIGHTHS, np.float32)[eighths & 7], (eighths >> 3) - 32)[steps]
    return scales


def decode(blob: bytes, /) -> dict[str, np.ndarray]:
    """Every tensor of an artifact by name; quantized and float16 ones as float32, others in their own dtype.

    Raises: CodecError for anything that is not a complete, undamaged artifact of this version.
    """
    tensors = unpack(blob)[1]
    distinct = {id(tensor): tensor for tensor in tensors.values()}  # ties stay one array
    floats = {key: as_floats(tensor) for key, tensor in distinct.items()}
    return {name: floats[id(tensor)] for name, tensor in tensors.items()}


def as_floats(tensor: QuantizedTensor | np.ndarray, /) -> np.ndarray:
    """Quantized and float16 tensors as float32, others as they are."""
    if isinstance(tensor, QuantizedTensor):
        return tensor.dequantize()
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor


def read_meta(blob: bytes, /) -> dict[str, Any]:
    """The JSON object stored beside the tensors: model config, tokenizer hash, recipe."""
    meta: dict[str, Any] = open_artifact(blob)[1]["meta"]
    return meta


def unpack(blob: bytes, /) -> tuple[dict[str, Any], dict[str, QuantizedTensor | np.ndarray]]:
    """(header, tensors by name) with quantized tensors left as levels and scales.  Raises: as `decode`."""
    stream, header = open_artifact(blob)
    return header, read_tensors(stream, header)


class Form(NamedTuple):
    """What the header says of a tensor: the numbers of its stored list by name, and what follows from them.

    kind: one of SCALES, else the dtype of a plain tensor.  dtype: of the scales, or of the plain tensor.
    rows, columns: of the matrix.  byte_tables: of the scales or plain tensor, lowest byte first.
    step_tables: of a trellis' row steps, then of column steps.
    base: first table of the matrix, -1 without one.  segments: equal parts of a row, with a class each.
    multiple_table: -1 where no row is predicted.
    Of a trellis, the last six; restart is 0 elsewhere.  odd_tables: how many tables further on odd states have theirs.
    far_table: 0 where every level is a symbol.  earlier: 0, or column steps are those stored so many before.
    """

    kind: str
    dtype: np.dtype[Any]
    shape: list[int]
    rows: int
    columns: int
    byte_tables: list[int]
    step_tables: list[int]
    lowest: int = 0
    base: int = -1
    row_table: int = 0
    column_table: int = 0
    segments: int = 1
    multiple_table: int = -1
    high_table: int = 0
    if_odd: int = 0
    if_half_odd: int = 0
    restart: int = 0
    odd_tables: int = 0
    far_table: int = 0
    earlier: int = 0

    @property
    def trellis(self) -> Trellis | None:
        return Trellis(self.if_odd, self.if_half_odd, self.restart) if self.restart else None


def parse_form(stored: list[Any], /) -> Form:
    """A form as the header stores it.  Raises: ValueError and its kin, MALFORMED, for what no tensor can have."""
    kind, shape, tables, *numbers = stored
    named = dict(zip(NUMBERS[len(numbers)].split(), numbers, strict=True))
    sizes = [*shape, *tables, *(value for name, value in named.items() if name != "lowest")]
    coded, dtype = kind == "trellis", np.dtype(SCALES.get(kind, str(kind)[:3]))
    by_row = numbers and kind != "all" and (shape[1:] or not coded)  # a vector is one row of a trellis
    rows = shape[0] if by_row else 1
    columns = math.prod(shape[:64]) // max(rows, 1)
    count = dtype.itemsize - (bool(numbers) and kind not in SCALES)
    form = Form(kind, dtype, shape, rows, columns, tables[:count], tables[count:], **named)
    if (
        {*map(type, (*sizes, *numbers))} != {int}
        or not 0 <= min(sizes) <= max(sizes) <= MAX_SIDE
        or shape[64:]  # numpy's limit
        or dtype.kind not in "fiub"
        or (not numbers if kind in SCALES else dtype.str != kind)
        or coded != ("restart" in named)
        or coded > form.restart
        or len(tables) != count + STEPS.get(kind, 0)
        or form.segments > max(columns, 1)
        or columns % form.segments
    ):
        raise ValueError(f"form {stored}")
    return form


class Stream:
    """rANS decoder over interleaved lanes: symbol i of a plane belongs to lane i mod lanes.

    frequencies: int64 (tables, 256), each row summing to 2**PRECISION.
    states: int64 (lanes,).  words: uint16.  left: how much work, in steps, may still be asked for.
    """

    def __init__(self, frequencies: np.ndarray, states: np.ndarray, words: np.ndarray, /) -> None:
        self.states, self.words = states, words.astype(np.int64)
        self.left, self.size = WORK + len(words) / 2, 0
        # One gather per symbol: slot -> symbol | frequency << 8 | slot - start << 24.
        packed = np.arange(256) | frequencies << 8 | (frequencies - np.cumsum(frequencies, 1)) << 24
        self.slots = np.repeat(packed, frequencies.ravel())
        self.slots.reshape(-1, 1 << PRECISION)[:] += np.arange(1 << PRECISION) << 24

    def plane(self, name: str, shape: tuple[int, ...], tables: Any, /) -> np.ndarray:
        """Decode a plane -> uint8 of this shape.  tables: one for all symbols, or one for each."""
        return self.take(np.broadcast_to(tables, shape).reshape(-1)).reshape(shape)

    def spend(self, steps: float, /) -> None:
        """Raises: CodecError when that is more than is left."""
        self.left -= steps
        if self.left < 0:
            raise CodecError("the artifact is outside the format's limits")

    def tensor(self, form: Form, steps: dict[int, list[np.ndarray]], /) -> QuantizedTensor | np.ndarray:
        """Decode a tensor; see `build_tensor`.  More bytes than there may be are more than any work."""
        # Empty sides count as 1: scales and classes take memory too.
        size = form.dtype.itemsize * math.prod(max(side, 1) for side in form.shape)
        self.size += size
        # Predicted rows come one by one.
        self.spend(size / 2048 + (self.size // MAX_BYTES << 32) + form.rows * (form.multiple_table >= 0))
        return build_tensor(form, self.plane, steps)

    def take(self, tables: np.ndarray, /) -> np.ndarray:
        """Decode one symbol per entry of `tables` (integer table numbers, (count,)) -> uint8 (count,)."""
        count, lanes = len(tables), len(self.states)
        self.spend(count / STEP + 5 + count // lanes)
        symbols = np.empty(count, np.uint8)
        for start in range(0, count, lanes):
            index = tables[start : start + lanes].astype(np.int64)
            state = self.states[: len(index)]
            entry = self.slots[(index << PRECISION) + (state & (1 << PRECISION) - 1)]
            symbols[start : start + lanes] = entry  # its lowest byte
            state = (entry >> 8 & 0xFFFF) * (state >> PRECISION) + (entry >> 24)
            low = np.flatnonzero(state < STATE_FLOOR)
            words, self.words = self.words[: len(low)], self.words[len(low) :]
            if len(words) < len(low):
                raise CodecError("the artifact's stream ends early", hint=DAMAGED)
            state[low] = state[low] << 16 | words
            self.states[: len(index)] = state
        return symbols

    def finish(self, /) -> None:
        """Raises: CodecError unless every word was used and every lane is back where the encoder began."""
        if len(self.words) or (self.states != STATE_FLOOR).any():
            raise CodecError("the artifact's stream ends late", hint=DAMAGED)


def frequencies(logs: np.ndarray, /) -> np.ndarray:
    """logs: uint8, a table as stored, 0 = symbol absent, else its frequency in eighths of an octave.

    -> int64 (256,) summing to 2**PRECISION, every present symbol at least 1.  Integers only.
    """
    weights = np.zeros(256, np.int64)
    eighths = logs - 1  # of uint8: 255 where the symbol is absent
    weights[: len(logs)] = (np.array(EIGHTHS)[eighths & 7] << (eighths >> 3)) * (logs > 0)
    if not weights.any() or logs.max() > 192:
        raise CodecError("the artifact is outside the format's limits")
    counts: np.ndarray = np.maximum((weights << PRECISION) // weights.sum(), weights > 0)
    counts[counts.argmax()] += (1 << PRECISION) - counts.sum()
    return counts


def open_artifact(blob: bytes, reader: type[Stream] = Stream, /) -> tuple[Stream, dict[str, Any]]:
    """Check length and checksum, read the tables, decode the header text -> (stream at the tensors, header)."""
    blob = bytes(blob)
    if blob[:4] != MAGIC:
        raise CodecError(
            f"starts with {blob[:4]!r}, an artifact of this version with {MAGIC!r}",
            hint="pass a model.bin of `pgolf pack`",
        )
    text_length, table_bytes, lanes, word_count = np.frombuffer(blob[4:20].ljust(16, b"\0"), "<u4").tolist()
    end = 20 + table_bytes
    need = end + 4 * lanes + 2 * word_count + 4
    if len(blob) != need or zlib.crc32(blob) != 0x2144DF1C:  # of anything and its CRC-32
        raise CodecError(f"has {len(blob)} of {need} bytes or a wrong checksum", hint=DAMAGED)
    tables, at = [np.full(256, 64)], 20  # table 0: uniform over bytes, never stored
    while at < end and len(tables) < MAX_TABLES:
        tables.append(frequencies(np.frombuffer(blob[at + 1 : at + 2 + blob[at]], np.uint8)))
        at += blob[at] + 2
    if at != end or not 0 < lanes <= 1 << 16 or text_length > MAX_TEXT:
        raise CodecError("the artifact is outside the format's limits")
    states = np.frombuffer(blob, "<u4", lanes, at).astype(np.int64)
    words = np.frombuffer(blob, "<u2", word_count, at + 4 * lanes)
    stream = reader(np.stack(tables), states, words)
    try:
        header = json.loads(stream.plane("text", (text_length,), 1).tobytes())
        return stream, {**header, "meta": {**header["meta"]}}
    except MALFORMED as error:
        raise CodecError(f"the artifact's header cannot be read ({error})") from None


def read_tensors(stream: Stream, header: dict[str, Any], /) -> dict[str, QuantizedTensor | np.ndarray]:
    """Decode every tensor in header order, then check that the stream ends there."""
    tensors: dict[str, QuantizedTensor | np.ndarray] = {}
    order: list[QuantizedTensor | np.ndarray] = []
    steps: dict[int, list[np.ndarray]] = {}
    name = ""
    try:
        forms, names = [parse_form(form) for form in header["forms"]], header["names"]
        for shared, suffix, form in names:
            name = name[:shared] + suffix
            stream.spend(len(name) / 32)
            # A negative form is a tie: the same tensor as an earlier one.
            order.append(stream.tensor(forms[form], steps) if form >= 0 else order[-1 - form])
            tensors[name] = order[-1]
        if len(tensors) != len(names):
            raise ValueError("a name occurs twice")
    except MALFORMED as error:
        raise CodecError(f"the artifact's header cannot be read ({error})") from None
    stream.finish()
    return tensors


def build_tensor(
    form: Form, plane: Callable[[str, tuple[int, ...], Any], np.ndarray], steps: dict[int, list[np.ndarray]], /
) -> QuantizedTensor | np.ndarray:
    """Ask for every plane of a tensor in the order of the stream, and build it: the one schedule of planes.

    plane: called with name, shape and tables (one for all symbols, or one for each), gives the symbols, uint8 of this
    shape; a name may come again, for the next row.  The encoder's notes what to code, the ledger's what it costs.
    steps: the column steps stored so far, by how many they are.
    """
    rows, columns, trellis, quantized = form.rows, form.columns, form.trellis, form.kind in SCALES
    items = (1 if trellis else rows) if quantized else rows * columns
    content = [plane(f"byte_{place}", (items,), table) for place, table in enumerate(form.byte_tables)]
    stored = steps.setdefault(columns, [])
    if form.step_tables and not form.earlier:
        stored.append(plane("column_steps", (columns,), form.step_tables[-1]))
    row_steps = plane("row_steps", (rows,), form.step_tables[0]) if trellis else None
    if form.base >= 0:
        levels = _trellis_levels(form, trellis, plane) if trellis else _levels(form, plane)
        if not quantized:
            content.append(levels.view(np.uint8).ravel())
    array = np.stack(content, 1).ravel().view(form.dtype)
    if not quantized:
        return array.reshape(form.shape)
    column_steps = None if form.kind in ("row", "all") else stored[-form.earlier or -1]
    return QuantizedTensor(levels.reshape(form.shape), array, column_steps, row_steps, trellis)


def _tables(form: Form, plane: Callable[[str, tuple[int, ...], Any], np.ndarray], /) -> np.ndarray:
    """Table of every level, int64 (rows, columns): base plus the class of its segment of the row plus its column's."""
    tables = np.zeros((form.rows, form.columns), np.int16) + form.base
    if form.row_table:
        classes = plane("row_classes", (form.rows, form.segments), form.row_table)
        tables += np.repeat(classes, form.columns // form.segments, 1)
    if form.column_table:
        tables += plane("column_classes", (form.columns,), form.column_table)
    return tables


def _trellis_levels(
    form: Form, trellis: Trellis, plane: Callable[[str, tuple[int, ...], Any], np.ndarray], /
) -> np.ndarray:
    """int32 (rows, columns).  A level is twice what is coded, and one more where the state of its column is odd."""
    tables = _tables(form, plane)
    levels, states = np.empty(tables.shape, np.int32), np.zeros(form.columns, np.int32)
    for row in range(form.rows if form.columns else 0):
        states *= row % trellis.restart > 0
        odd = states & 1
        folded = plane("levels", odd.shape, tables[row] + odd * form.odd_tables).astype(np.int32)
        if form.far_table:
            far = np.flatnonzero(folded == 255)
            folded[far] += plane("low_far", far.shape, 0)
            folded[far] += plane("high_far", far.shape, form.far_table).astype(np.int32) << 8
        # Halves 0, -1, 1, -2, ... are 0, 1, 2, 3, ...: so a table is as long as its levels are far from 0.
        levels[row] = 2 * (folded >> 1 ^ -(folded & 1)) + odd
        states = trellis.after(states, levels[row])
    return levels


def _levels(form: Form, plane: Callable[[str, tuple[int, ...], Any], np.ndarray], /) -> np.ndarray:
    """int8 (rows, columns)."""
    rows, columns, tables = form.rows, form.columns, _tables(form, plane)
    multiples = predicted = references = np.zeros(0, np.int64)
    if form.multiple_table >= 0:
        multiples = plane("multiples", (rows,), form.multiple_table)
        predicted = np.flatnonzero(multiples)
        references = plane("low_references", predicted.shape, 0) + 256 * plane(
            "high_references", predicted.shape, form.high_table
        ).astype(np.int64)
        if (references >= predicted).any():
            raise ValueError("order of rows")
    levels = plane("levels", (rows, columns), tables).astype(np.int16)
    levels += form.lowest
    for row, reference in zip(predicted, references, strict=True):
        said = (2 * (int(multiples[row]) - 9) * levels[reference] + 8) // 16
        levels[row] = (levels[row] + said).astype(np.int8)
    return levels.astype(np.int8)
