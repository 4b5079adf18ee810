"""Arrays -> artifact bytes: a pure function of names, values and metadata (docs/format.md)."""

import hashlib
import json
import math
import os.path
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import (
    MAGIC,
    MAX_BYTES,
    MAX_SIDE,
    MAX_TABLES,
    MAX_TEXT,
    STEP,
    WORK,
    QuantizedTensor,
    Trellis,
    build_tensor,
    frequencies,
    parse_form,
)
from codec.entropy.byte_tables import byte_tables
from codec.entropy.level_tables import Fitted, split_by_state
from codec.entropy.models import fit_group
from codec.entropy.planes import TRELLIS, TensorPlanes, arrays_of, cut
from codec.entropy.rans import lane_count, rans_encode, table_logs
from codec.errors import CodecError

KEPT = ("config", "layout", "tokenizer_sha256")  # of a checkpoint's metadata, inside the artifact

Tensor = QuantizedTensor | np.ndarray
Plane = tuple[np.ndarray, np.ndarray]  # symbols uint8 (count,), table of each (count,)
MAX_EARLIER = 8  # stored column steps that a trellis looks back over: q, k, v, o of a block are four
TEXT_TABLE = 1  # table 0 is the uniform one
COMMON_TABLES = 64  # zeros, text, and 62 for the byte planes of all kinds of tensors
SIDE_PLANES = ("row_classes", "column_classes", "multiples", "high_references", "high_far")  # a table each per group
FARTHEST = 1 << 16  # level of a trellis: a symbol and its two bytes reach to 255 + 0xFFFF


def encode(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Lossless: `codec.decoder.unpack` gives back these levels, scales and arrays, bit for bit.

    tensors: by name, quantized or plain (float, integer or bool).  meta: any JSON object.
    Equal tensors are stored once.  Order of the mapping, threads and platform do not change the bytes.

    Raises: CodecError for an unsupported dtype, a shape that does not fit its scales, or too many weights.
    """
    names = sorted(tensors)
    for name in names:
        _check(name, tensors[name])
    plan = _plan({name: tensors[name] for name in names})
    header = {"forms": plan.forms, "meta": dict(meta), "names": plan.names}
    try:
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CodecError(f"the metadata cannot be stored ({error})", hint="keep to finite numbers and text") from None
    if len(text) > MAX_TEXT:
        raise CodecError(f"names and metadata take {len(text)} characters, an artifact holds at most {MAX_TEXT}")
    return _assemble(plan, text)


def artifact_meta(notes: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs inside an artifact of its checkpoint's metadata, all but the name of the recipe."""
    return {key: notes[key] for key in KEPT if notes.get(key) is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """A tensor that is stored.  form: as the header holds it.  fitted, place: the coding of its matrix."""

    form: list[Any]
    cut: TensorPlanes
    fitted: Fitted | None
    place: int

    def planes(self) -> list[Plane]:
        """In the order of the stream."""
        named = {f"byte_{place}": plane for place, plane in enumerate(self.cut.content)}
        steps = {}
        if self.cut.column_steps is not None:
            named["column_steps"] = self.cut.column_steps
            steps[len(self.cut.column_steps)] = [self.cut.column_steps] * MAX_EARLIER
        if self.cut.row_steps is not None:
            named["row_steps"] = self.cut.row_steps
        if self.fitted:
            named |= self.fitted.side_information(self.place) | {"levels": self.fitted.code(self.place)}
        left = {name: each.ravel() for name, each in named.items()}
        found: list[Plane] = []

        def plane(name: str, shape: tuple[int, ...], tables: Any) -> np.ndarray:
            symbols, left[name] = np.split(left[name], [math.prod(shape)])
            found.append((symbols, np.broadcast_to(tables, shape).reshape(-1)))
            return symbols.reshape(shape)

        build_tensor(parse_form(self.form), plane, steps)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What is coded, under which tables.  table_counts: int64 (256,) of each.  forms, names: as the header holds them.

    stored: the tensors in the order of the stream.  symbols: how many there are, about.
    """

    table_counts: list[np.ndarray]
    forms: list[list[Any]]
    names: list[tuple[int, str, int]]
    stored: list[_Stored]
    symbols: int


def _plan(tensors: dict[str, Tensor]) -> _Plan:
    distinct, ties = _distinct(tensors)
    pieces = {name: cut(tensor) for name, tensor in distinct.items()}
    kinds, earlier = _kinds(pieces)
    fitted = _fitted(pieces)
    used = sum(len(each.counts) + len(SIDE_PLANES) for each, _ in fitted)
    found = byte_tables(
        {name: _byte_planes(kinds[name], earlier[name], piece) for name, piece in pieces.items()},
        MAX_TABLES - COMMON_TABLES - used,
    )
    counts = [np.ones(256, np.int64), np.zeros(256, np.int64), *found.counts]
    byte_numbers = {
        name: [TEXT_TABLE + table if table else 0 for table in tables] for name, tables in found.planes.items()
    }
    models = {name: model for each in fitted for name, model in _models(pieces, *each, counts).items()}
    plan = _Plan(
        table_counts=counts,
        forms=[],
        names=[],
        stored=[],
        symbols=sum(piece.symbols for piece in pieces.values()),
    )
    previous = ""
    for name in tensors:
        number = -1 - ties[name] if name in ties else None
        if number is None:
            piece = pieces[name]
            numbers, coding, place = models.get(name, ([], None, 0))
            tables = byte_numbers[name] + ([0] if earlier[name] else [])
            form = [kinds[name], list(piece.shape), tables, *numbers]
            if piece.trellis:
                form.append(earlier[name])
            plan.stored.append(_Stored(form=form, cut=piece, fitted=coding, place=place))
            if form not in plan.forms:
                plan.forms.append(form)
            number = plan.forms.index(form)
        shared = len(os.path.commonprefix([previous, name]))  # noqa: RUF071 (characters are meant)
        plan.names.append((shared, name[shared:], number))
        previous = name
    return plan


def _kinds(pieces: Mapping[str, TensorPlanes]) -> tuple[dict[str, str], dict[str, int]]:
    """(kinds as forms have them, how many stored column steps back a trellis finds its own; 0 for its own).

    Of a row: `*` for column steps of its own, `=` for those stored last, if they are equal.
    """
    stored: dict[int, list[bytes]] = {}
    kinds, earlier = {}, dict.fromkeys(pieces, 0)
    for name, piece in pieces.items():
        kinds[name] = piece.kind
        if piece.column_steps is None:
            continue
        steps, before = piece.column_steps.tobytes(), stored.setdefault(len(piece.column_steps), [])
        if piece.trellis and steps in before[-MAX_EARLIER:]:
            earlier[name] = 1 + before[::-1].index(steps)
        elif not piece.trellis:
            kinds[name] += "=" if before[-1:] == [steps] else "*"
        if not earlier[name] and not kinds[name].endswith("="):
            before.append(steps)
    return kinds, earlier


def _byte_planes(kind: str, earlier: int, piece: TensorPlanes) -> list[tuple[str, np.ndarray]]:
    """Kinds of planes that may share a table, and their symbols; row and column steps last, as in a form."""
    planes = [(piece.kind, plane) for plane in piece.content]
    if piece.row_steps is not None:
        planes.append(("row_steps", piece.row_steps))
    if piece.column_steps is not None and not earlier and not kind.endswith("="):
        planes.append(("column_steps", piece.column_steps))
    return planes


def _fitted(pieces: Mapping[str, TensorPlanes]) -> list[tuple[Fitted, list[str]]]:
    """The coding of each group of matrices, and the names of its tensors."""
    groups: dict[str, list[str]] = {}
    for name, piece in pieces.items():
        if piece.matrix:
            groups.setdefault(piece.group, []).append(name)
    most = (MAX_TABLES - COMMON_TABLES) // max(len(groups), 1) - len(SIDE_PLANES)
    found = []
    for group, names in sorted(groups.items()):
        matrices = [matrix for name in names if (matrix := pieces[name].matrix)]
        split = group == TRELLIS
        fitted = fit_group(matrices, most // 2 if split else most)
        found.append((split_by_state(fitted) if split else fitted, names))
    return found


def _models(
    pieces: Mapping[str, TensorPlanes], fitted: Fitted, names: list[str], table_counts: list[np.ndarray]
) -> dict[str, tuple[list[int], Fitted, int]]:
    """By name the numbers of the form that describe the matrix; its coding, and its place in that.  Adds the tables."""
    first = len(table_counts)
    table_counts += list(fitted.counts)
    tables = dict.fromkeys(SIDE_PLANES, 0)
    for plane in SIDE_PLANES:
        counts = fitted.side_counts(plane)
        if counts.any():
            tables[plane] = len(table_counts)
            table_counts.append(counts)
    models = {}
    for place, name in enumerate(names):
        side, segments = fitted.side_information(place), fitted.segments(place)
        trellis = pieces[name].trellis
        numbers = [] if trellis else [fitted.lowest]  # halves of a trellis are folded
        numbers.append(first + fitted.contexts[place].base)
        numbers += [tables[plane] if plane in side else 0 for plane in ("row_classes", "column_classes")]
        if "multiples" in side:
            numbers += [tables["multiples"], tables["high_references"]]
        if segments > 1 or trellis:
            numbers.append(segments)
        if trellis:
            numbers += [*trellis, fitted.odd_tables, tables["high_far"] if "high_far" in side else 0]
        models[name] = (numbers, fitted, place)
    return models


def _assemble(plan: _Plan, text: bytes) -> bytes:
    symbols = np.frombuffer(text, np.uint8)
    plan.table_counts[TEXT_TABLE] = np.bincount(symbols, minlength=256)
    logs = [table_logs(counts) for counts in plan.table_counts]
    tables = b"".join(bytes([len(each) - 1]) + each.tobytes() for each in logs[1:])

    lanes = max(lane_count(plan.symbols), lane_count(len(text)))
    work = _work(plan)

    def last_first() -> Iterator[Plane]:
        nonlocal work
        for plane in _last_first(plan, symbols):
            work += len(plane[0]) / STEP + 5 + len(plane[0]) // lanes
            yield plane

    states, words = rans_encode(last_first(), np.stack([frequencies(each) for each in logs]), lanes)
    if work > (most := WORK + len(words) / 2):
        reason = f"{2 * len(words)} bytes of data may ask for {most:.0f} steps of a reader, these take {work:.0f}"
        raise CodecError(reason, hint="keep smaller tensors, fewer rows or more bits")
    head = MAGIC + struct.pack("<4I", len(text), len(tables), lanes, len(words))
    body = head + tables + states.tobytes() + words.tobytes()
    return body + struct.pack("<I", zlib.crc32(body))


def _last_first(plan: _Plan, text: np.ndarray) -> Iterator[Plane]:
    for tensor in reversed(plan.stored):
        yield from reversed(tensor.planes())
    yield text, np.full(len(text), TEXT_TABLE)


def _work(plan: _Plan) -> float:
    """What sizes, predicted rows and names take of a reader's time, in steps (docs/format.md).

    Raises: CodecError for more bytes than there may be.
    """
    forms = [parse_form(tensor.form) for tensor in plan.stored]
    size = sum(form.dtype.itemsize * math.prod(max(side, 1) for side in form.shape) for form in forms)
    if size >= MAX_BYTES:
        raise CodecError(f"the tensors have {size} bytes, an artifact holds less than {MAX_BYTES}")
    rows = sum(form.rows for form in forms if form.multiple_table >= 0)
    characters = sum(shared + len(suffix) for shared, suffix, _ in plan.names)
    return size / 2048 + rows + characters / 32


def _check(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, QuantizedTensor):
        if tensor.dtype.kind not in "fiub" or tensor.dtype.itemsize > 8:  # longdouble
            raise CodecError(f"has dtype {tensor.dtype}, which an artifact cannot hold", where=f"tensor `{name}`")
    elif tensor.trellis:
        _check_trellis(f"tensor `{name}`", tensor, tensor.trellis)
    else:
        _check_steps(f"tensor `{name}`", tensor)


def _check_trellis(where: str, tensor: QuantizedTensor, trellis: Trellis) -> None:
    levels, scales = tensor.levels, tensor.scales
    if any(type(each) is not int or not 0 <= each <= MAX_SIDE for each in trellis) or not trellis.restart:
        reason = f"its {trellis} has numbers that an artifact cannot hold"
        raise CodecError(reason, where=where, hint=f"they are int, 0 to {MAX_SIDE}, restart at least 1")
    if levels.dtype != np.int32 or scales.dtype != np.float32 or scales.shape != (1,):
        reason = f"levels {levels.dtype} do not go with scales {scales.dtype} {scales.shape}"
        raise CodecError(reason, where=where, hint="levels of a trellis are int32, beside one float32 scale")
    rows, columns = tensor.rows, levels.size // max(tensor.rows, 1)
    for axis, steps, count in (("row", tensor.row_steps, rows), ("column", tensor.column_steps, columns)):
        if steps is None or steps.dtype != np.uint8 or steps.shape != (count,):
            has = "no" if steps is None else f"{steps.dtype} {steps.shape} as"
            raise CodecError(f"has {has} {axis} steps", where=where, hint=f"a trellis has some, uint8 ({count},)")
    farthest = max(int(levels.max(initial=0)), -int(levels.min(initial=0)))
    if farthest > FARTHEST:
        raise CodecError(f"has a level of {farthest}, at most {FARTHEST} fits", where=where, hint="widen its steps")
    states = np.zeros(columns, np.int64)
    for row, own in enumerate(levels.reshape(rows, columns)):
        states *= row % trellis.restart > 0
        if ((own ^ states) & 1).any():
            raise CodecError(
                f"the levels of row {row} are not those that its trellis allows",
                where=where,
                hint="a level is even where the state of its column is, and odd elsewhere",
            )
        states = trellis.after(states, own)


def _check_steps(where: str, tensor: QuantizedTensor) -> None:
    per_row = tensor.scales.dtype == np.float16
    rows = tensor.levels.shape[0] if per_row and tensor.levels.ndim else 1
    if (
        tensor.levels.dtype != np.int8
        or (per_row and not tensor.levels.ndim)
        or tensor.scales.dtype not in (np.float16, np.float32)
        or tensor.scales.shape != (rows,)
    ):
        raise CodecError(
            f"levels {tensor.levels.dtype} {tensor.levels.shape} do not go with scales "
            f"{tensor.scales.dtype} {tensor.scales.shape}",
            where=where,
            hint="levels are int8; scales float16 (rows,) or float32 (1,)",
        )
    columns = tensor.levels.size // max(rows, 1)
    if tensor.row_steps is not None:
        raise CodecError("has row steps and no trellis", where=where, hint="only a trellis has row steps")
    steps = tensor.column_steps
    if steps is not None and not (per_row and steps.dtype == np.uint8 and steps.shape == (columns,)):
        raise CodecError(
            f"column steps {steps.dtype} {steps.shape} do not go with levels {tensor.levels.shape} and scales "
            f"{tensor.scales.dtype}",
            where=where,
            hint=f"they are uint8 ({columns},), beside float16 scales of the rows",
        )


def _distinct(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """(first occurrence of every distinct tensor, position in name order of what each other one repeats)."""
    distinct: dict[str, Tensor] = {}
    ties: dict[str, int] = {}
    seen: dict[bytes, int] = {}
    for position, (name, tensor) in enumerate(tensors.items()):
        digest = hashlib.sha256(repr(tensor.trellis).encode() if isinstance(tensor, QuantizedTensor) else b"")
        for array in arrays_of(tensor):
            digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        first = seen.setdefault(digest.digest(), position)
        if first == position:
            distinct[name] = tensor
        else:
            ties[name] = first
    return distinct, ties
