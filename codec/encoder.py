"""Arrays -> artifact bytes: a pure function of names, values and metadata (docs/format.md)."""

import hashlib
import json
import os.path
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.byte_tables import byte_tables
from codec.contexts import MOST_TABLES, Contexts, Grouping, group, table_cost
from codec.decoder import MAGIC, MAX_TABLES, MAX_WEIGHTS, QuantizedTensor, frequencies
from codec.errors import CodecError
from codec.prediction import Predictions, differences, find_predictions
from codec.quantize import level_bits
from codec.rans import encode as rans_encode
from codec.rans import lane_count, table_logs

Tensor = QuantizedTensor | np.ndarray
Plane = tuple[np.ndarray, np.ndarray]  # symbols uint8 (count,), table of each (count,)
TEXT_TABLE = 1  # table 0 is the uniform one
FEWEST_GROUPED = 2048  # floats, below which classes of rows cost more than they save
TABLES_PER_GROUP = MOST_TABLES + 4  # classes of rows and columns, multiples and references of predictions
MOST_BYTE_TABLES = MAX_TABLES - 64  # 2 for zeros and text, 62 common to the byte planes of all kinds of tensors


def encode(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Lossless: `codec.decoder.unpack` gives back these levels, scales and arrays, bit for bit.

    tensors: by name, quantized or plain (float, integer or bool).  meta: any JSON object.
    Equal tensors are stored once.  Order of the mapping, threads and platform do not change the bytes.

    Raises: CodecError for an unsupported dtype, a shape that does not fit its scales, or too many weights.
    """
    names = sorted(tensors)
    for name in names:
        _check(name, tensors[name])
    builder = _Builder({name: tensors[name] for name in names})
    text = json.dumps(
        {"forms": builder.forms, "meta": dict(meta), "names": builder.names},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()
    return _assemble(builder, text)


@dataclass(frozen=True, slots=True)
class _Part:
    """How a tensor is cut up: byte planes under one table each, and an int8 matrix under tables by row and column.

    planes: uint8 (bytes, count).  matrix: predicted rows as differences.
    group: tensors of one group share the tables of their matrices.
    """

    kind: str
    shape: tuple[int, ...]
    planes: np.ndarray
    matrix: np.ndarray | None
    group: str
    predictions: Predictions | None

    @property
    def symbols(self) -> int:
        return self.planes.size + (0 if self.matrix is None else self.matrix.size)


class _Builder:
    """Decides the tables and the form of every tensor; yields the planes to code."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.table_counts: list[np.ndarray] = [np.ones(256, np.int64), np.zeros(256, np.int64)]
        self.forms: list[list[Any]] = []
        self.names: list[tuple[int, str, int]] = []
        self.planes: list[Callable[[], list[Plane]]] = []
        distinct, ties = _distinct(tensors)
        self.parts = {name: _part(tensor) for name, tensor in distinct.items()}
        self.byte_tables = self._byte_tables()
        self.models = self._models()
        previous = ""
        for name in tensors:
            shared = len(os.path.commonprefix([previous, name]))  # noqa: RUF071 (characters are meant)
            form = self._form(name) if name in distinct else -1 - ties[name]
            self.names.append((shared, name[shared:], form))
            previous = name

    def _add_table(self, counts: np.ndarray) -> int:
        self.table_counts.append(counts)
        return len(self.table_counts) - 1

    def _byte_tables(self) -> dict[str, list[int]]:
        groups = {part.group for part in self.parts.values() if part.matrix is not None}
        planes = {name: (part.kind, part.planes) for name, part in self.parts.items()}
        found = byte_tables(planes, MOST_BYTE_TABLES - TABLES_PER_GROUP * len(groups))
        first = len(self.table_counts) - 1
        self.table_counts += found.counts
        return {name: [first + table if table else 0 for table in tables] for name, tables in found.planes.items()}

    def _models(self) -> dict[str, tuple[list[int], Contexts]]:
        """name -> ([lowest, first table, row-class table, column-class table, tables of predictions...], contexts)."""
        groups: dict[str, list[str]] = {}
        for name, part in self.parts.items():
            if part.matrix is not None:
                groups.setdefault(part.group, []).append(name)
        models = {}
        for _, members in sorted(groups.items()):
            matrices = [matrix for name in members if (matrix := self.parts[name].matrix) is not None]
            lowest = min(int(matrix.min(initial=0)) for matrix in matrices)
            grouping = group(matrices, lowest)
            first, row_table, column_table = self._add_group(grouping)
            prediction_tables = self._add_predictions([self.parts[name].predictions for name in members])
            for name, contexts in zip(members, grouping.contexts, strict=True):
                tables = [
                    row_table if contexts.rows is not None else 0,
                    column_table if contexts.columns is not None else 0,
                ]
                if self.parts[name].predictions:
                    tables += prediction_tables
                models[name] = [lowest, first + contexts.base, *tables], contexts
        return models

    def _add_group(self, grouping: Grouping) -> tuple[int, int, int]:
        first = len(self.table_counts)
        for counts in grouping.counts:
            self._add_table(counts)
        row_table, column_table = (
            self._add_table(counts) if counts.any() else 0 for counts in (grouping.row_counts, grouping.column_counts)
        )
        return first, row_table, column_table

    def _add_predictions(self, found: list[Predictions | None]) -> list[int]:
        """Tables of the multiples, and of the high bytes of the references, of a group."""
        planes = [_prediction_planes(each) for each in found if each]
        if not planes:
            return []
        multiples, _, high = (
            sum((np.bincount(each[index], minlength=256) for each in planes), np.zeros(256, np.int64))
            for index in range(3)
        )
        return [self._add_table(multiples), self._add_table(high)]

    def _form(self, name: str) -> int:
        part, tables = self.parts[name], self.byte_tables[name]
        planes: list[Plane] = [
            (plane, np.full(len(plane), table)) for plane, table in zip(part.planes, tables, strict=True)
        ]
        form: list[Any] = [part.kind, list(part.shape), tables]
        if part.matrix is None:
            self.planes.append(lambda: planes)
        else:
            numbers, contexts = self.models[name]
            matrix, form = part.matrix, [*form, *numbers]
            self.planes.append(lambda: [*planes, *_level_planes(matrix, contexts, part.predictions, *numbers)])
        if form not in self.forms:
            self.forms.append(form)
        return self.forms.index(form)


def _level_planes(
    matrix: np.ndarray,
    contexts: Contexts,
    predictions: Predictions | None,
    lowest: int,
    base: int,
    row_table: int,
    column_table: int,
    *tables: int,
) -> list[Plane]:
    planes: list[Plane] = []
    index = np.full(matrix.shape, base, np.int32)
    if contexts.rows is not None:
        planes.append((contexts.rows, np.full(len(matrix), row_table)))
        index += contexts.rows[:, None]
    if contexts.columns is not None:
        planes.append((contexts.columns, np.full(matrix.shape[1], column_table)))
        index += contexts.columns
    if predictions:
        multiples, low, high = _prediction_planes(predictions)
        planes += [
            (plane, np.full(len(plane), table))
            for plane, table in ((multiples, tables[0]), (low, 0), (high, tables[1]))
        ]
    return [*planes, ((matrix.astype(np.int16) - lowest).astype(np.uint8).ravel(), index.ravel())]


def _prediction_planes(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8: multiples of all rows, low and high bytes of the references of the predicted ones."""
    references = predictions.references[predictions.multiples > 0]
    return predictions.multiples, (references & 255).astype(np.uint8), (references >> 8).astype(np.uint8)


def _assemble(builder: _Builder, text: bytes) -> bytes:
    symbols = np.frombuffer(text, np.uint8)
    builder.table_counts[TEXT_TABLE] = np.bincount(symbols, minlength=256)
    logs = [table_logs(counts) for counts in builder.table_counts]
    tables = b"".join(bytes([len(each) - 1]) + each.tobytes() for each in logs[1:])

    def last_first() -> Iterator[Plane]:
        for planes in reversed(builder.planes):
            yield from reversed(planes())
        yield symbols, np.full(len(symbols), TEXT_TABLE)

    lanes = lane_count(sum(part.symbols for part in builder.parts.values()))
    states, words = rans_encode(last_first(), np.stack([frequencies(each) for each in logs]), lanes)
    head = MAGIC + struct.pack("<4I", len(text), len(tables), lanes, len(words))
    body = head + tables + states.tobytes() + words.tobytes()
    return body + struct.pack("<I", zlib.crc32(body))


def _check(name: str, tensor: Tensor) -> None:
    array = tensor.levels if isinstance(tensor, QuantizedTensor) else tensor
    if array.size > MAX_WEIGHTS:
        raise CodecError(f"has {array.size} weights, an artifact holds at most {MAX_WEIGHTS}", where=f"tensor `{name}`")
    if isinstance(tensor, QuantizedTensor):
        rows = tensor.levels.shape[0] if tensor.scales.dtype == np.float16 and tensor.levels.ndim else 1
        if (
            tensor.levels.dtype != np.int8
            or tensor.scales.dtype not in (np.float16, np.float32)
            or tensor.scales.shape != (rows,)
        ):
            raise CodecError(
                f"levels {tensor.levels.dtype} {tensor.levels.shape} do not go with scales "
                f"{tensor.scales.dtype} {tensor.scales.shape}",
                where=f"tensor `{name}`",
                hint="levels are int8; scales float16 (rows,) or float32 (1,)",
            )
    elif tensor.dtype.kind not in "fiub":
        raise CodecError(f"has dtype {tensor.dtype}, which an artifact cannot hold", where=f"tensor `{name}`")


def _distinct(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """(first occurrence of every distinct tensor, position in name order of what each other one repeats)."""
    distinct: dict[str, Tensor] = {}
    ties: dict[str, int] = {}
    seen: dict[bytes, int] = {}
    for position, (name, tensor) in enumerate(tensors.items()):
        parts = tensor if isinstance(tensor, QuantizedTensor) else (tensor,)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        first = seen.setdefault(digest.digest(), position)
        if first == position:
            distinct[name] = tensor
        else:
            ties[name] = first
    return distinct, ties


def _part(tensor: Tensor) -> _Part:
    if isinstance(tensor, QuantizedTensor):
        rows = len(tensor.scales)
        matrix = tensor.levels.reshape(rows, tensor.levels.size // max(rows, 1))
        kind = "row" if tensor.scales.dtype == np.float16 else "all"
        # Tensors of one bit width share their tables.
        return _matrix_part(
            kind, tensor.levels.shape, _byte_planes(tensor.scales), matrix, f"{level_bits(matrix)} bits"
        )
    kind, planes = tensor.dtype.newbyteorder("<").str, _byte_planes(tensor)
    if tensor.dtype.kind != "f" or tensor.ndim < 2 or tensor.size < FEWEST_GROUPED:
        return _Part(kind, tensor.shape, planes, None, "", None)
    # The top byte of a float, sign and exponent, is as different from row to row as a level is.
    return _matrix_part(kind, tensor.shape, planes[:-1], planes[-1].view(np.int8).reshape(len(tensor), -1), kind)


def _matrix_part(kind: str, shape: tuple[int, ...], planes: np.ndarray, matrix: np.ndarray, name: str) -> _Part:
    found = find_predictions(matrix)
    if found is None:
        return _Part(kind, shape, planes, matrix, name, None)
    changed = differences(matrix, found)
    # Less energy is not always fewer bits: weights that were quantized before use few of their levels.
    price = sum(table_cost(np.bincount(plane, minlength=256)) for plane in _prediction_planes(found))
    if price + _cost(changed) < _cost(matrix):
        return _Part(kind, shape, planes, changed, name, found)
    return _Part(kind, shape, planes, matrix, name, None)


def _cost(matrix: np.ndarray) -> int:
    return group([matrix], int(matrix.min(initial=0))).cost


def _byte_planes(array: np.ndarray) -> np.ndarray:
    """uint8 (itemsize, count), lowest byte first."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).ravel()
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, array.dtype.itemsize).T)
