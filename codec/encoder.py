"""Arrays -> artifact bytes: a pure function of names, values and metadata (docs/format.md)."""

import hashlib
import json
import math
import os.path
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import MAGIC, MAX_TABLES, MAX_TEXT, MAX_WEIGHTS, QuantizedTensor, frequencies
from codec.entropy.byte_tables import byte_tables
from codec.entropy.level_tables import Contexts, Grouping, group
from codec.entropy.planes import Matrix, cut, prediction_planes
from codec.entropy.rans import encode as rans_encode
from codec.entropy.rans import lane_count, table_logs
from codec.entropy.row_classes import symbols_of
from codec.entropy.row_prediction import Predictions
from codec.errors import CodecError

Tensor = QuantizedTensor | np.ndarray
Plane = tuple[np.ndarray, np.ndarray]  # symbols uint8 (count,), table of each (count,)
TEXT_TABLE = 1  # table 0 is the uniform one
COMMON_TABLES = 64  # zeros, text, and 62 for the byte planes of all kinds of tensors
EXTRA_TABLES = 4  # of a group: classes of rows and columns, multiples and references of predictions


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
    header = {"forms": builder.forms, "meta": dict(meta), "names": builder.names}
    try:
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CodecError(f"the metadata cannot be stored ({error})", hint="keep to finite numbers and text") from None
    if len(text) > MAX_TEXT:
        raise CodecError(f"names and metadata take {len(text)} characters, an artifact holds at most {MAX_TEXT}")
    return _assemble(builder, text)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    """How a matrix is coded: lowest level, first table, tables of the classes (0: none) and of the predictions."""

    matrix: Matrix
    contexts: Contexts
    lowest: int
    base: int
    row_table: int
    column_table: int
    prediction_tables: tuple[int, ...]

    @property
    def parts(self) -> int:
        """Into how many the rows are cut, each with a class of its own."""
        return 1 if self.contexts.rows is None else len(self.contexts.rows) // len(self.matrix.levels)

    @property
    def numbers(self) -> list[int]:
        """As docs/format.md lists them."""
        parts = [self.parts] if self.parts > 1 else []
        return [self.lowest, self.base, self.row_table, self.column_table, *self.prediction_tables, *parts]

    def planes(self) -> list[Plane]:
        levels, contexts = self.matrix.levels, self.contexts
        planes: list[Plane] = []
        index = np.full(levels.shape, self.base, np.int32)
        if contexts.rows is not None:
            planes.append((contexts.rows, np.full(len(contexts.rows), self.row_table)))
            index += np.repeat(contexts.rows.reshape(-1, self.parts), levels.shape[1] // self.parts, axis=1)
        if contexts.columns is not None:
            planes.append((contexts.columns, np.full(levels.shape[1], self.column_table)))
            index += contexts.columns
        if self.matrix.predictions:
            multiples, low, high = prediction_planes(self.matrix.predictions)
            tables = self.prediction_tables
            planes += [
                (plane, np.full(len(plane), table))
                for plane, table in ((multiples, tables[0]), (low, 0), (high, tables[1]))
            ]
        return [*planes, (symbols_of(levels, self.lowest).ravel(), index.ravel())]


class _Builder:
    """Decides the tables and the form of every tensor; yields the planes to code."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.table_counts: list[np.ndarray] = [np.ones(256, np.int64), np.zeros(256, np.int64)]
        self.forms: list[list[Any]] = []
        self.names: list[tuple[int, str, int]] = []
        self.planes: list[Callable[[], list[Plane]]] = []
        distinct, ties = _distinct(tensors)
        self.weights = sum(_weights(tensor) for tensor in distinct.values())
        if self.weights > MAX_WEIGHTS:
            raise CodecError(f"the tensors have {self.weights} weights, an artifact holds at most {MAX_WEIGHTS}")
        self.parts = {name: cut(tensor) for name, tensor in distinct.items()}
        groups = self._groups()
        used = sum(len(grouping.counts) + EXTRA_TABLES for _, grouping in groups)
        self.byte_tables = self._byte_tables(MAX_TABLES - COMMON_TABLES - used)
        self.models = {name: model for each in groups for name, model in self._models(*each).items()}
        previous = ""
        for name in tensors:
            shared = len(os.path.commonprefix([previous, name]))  # noqa: RUF071 (characters are meant)
            form = self._form(name) if name in distinct else -1 - ties[name]
            self.names.append((shared, name[shared:], form))
            previous = name

    def _add_table(self, counts: np.ndarray) -> int:
        self.table_counts.append(counts)
        return len(self.table_counts) - 1

    def _groups(self) -> list[tuple[dict[str, Matrix], Grouping]]:
        """Matrices that share tables, by name of the tensor, and which tables."""
        groups: dict[str, dict[str, Matrix]] = {}
        for name, part in self.parts.items():
            if part.matrix:
                groups.setdefault(part.matrix.group, {})[name] = part.matrix
        most = (MAX_TABLES - COMMON_TABLES) // max(len(groups), 1) - EXTRA_TABLES
        members = [matrices for _, matrices in sorted(groups.items())]
        return [(each, group([matrix.levels for matrix in each.values()], most)) for each in members]

    def _byte_tables(self, most: int) -> dict[str, list[int]]:
        found = byte_tables({name: (part.kind, part.planes) for name, part in self.parts.items()}, most)
        first = len(self.table_counts) - 1
        self.table_counts += found.counts
        return {name: [first + table if table else 0 for table in tables] for name, tables in found.planes.items()}

    def _models(self, matrices: dict[str, Matrix], grouping: Grouping) -> dict[str, _Model]:
        first = len(self.table_counts)
        self.table_counts += list(grouping.counts)
        row_table, column_table = (
            self._add_table(counts) if counts.any() else 0 for counts in (grouping.row_counts, grouping.column_counts)
        )
        predictions = self._add_predictions([matrix.predictions for matrix in matrices.values()])
        return {
            name: _Model(
                matrix=matrix,
                contexts=contexts,
                lowest=grouping.lowest,
                base=first + contexts.base,
                row_table=row_table if contexts.rows is not None else 0,
                column_table=column_table if contexts.columns is not None else 0,
                prediction_tables=predictions if matrix.predictions else (),
            )
            for (name, matrix), contexts in zip(matrices.items(), grouping.contexts, strict=True)
        }

    def _add_predictions(self, found: list[Predictions | None]) -> tuple[int, ...]:
        """Tables of the multiples, and of the high bytes of the references, of a group."""
        planes = [prediction_planes(each) for each in found if each]
        if not planes:
            return ()
        multiples, _, high = (
            sum((np.bincount(each[index], minlength=256) for each in planes), np.zeros(256, np.int64))
            for index in range(3)
        )
        return self._add_table(multiples), self._add_table(high)

    def _form(self, name: str) -> int:
        part, tables, model = self.parts[name], self.byte_tables[name], self.models.get(name)
        planes: list[Plane] = [
            (plane, np.full(len(plane), table)) for plane, table in zip(part.planes, tables, strict=True)
        ]
        self.planes.append(lambda: [*planes, *(model.planes() if model else ())])
        form = [part.kind, list(part.shape), tables, *(model.numbers if model else ())]
        if form not in self.forms:
            self.forms.append(form)
        return self.forms.index(form)


def _assemble(builder: _Builder, text: bytes) -> bytes:
    symbols = np.frombuffer(text, np.uint8)
    builder.table_counts[TEXT_TABLE] = np.bincount(symbols, minlength=256)
    logs = [table_logs(counts) for counts in builder.table_counts]
    tables = b"".join(bytes([len(each) - 1]) + each.tobytes() for each in logs[1:])

    def last_first() -> Iterator[Plane]:
        for planes in reversed(builder.planes):
            yield from reversed(planes())
        yield symbols, np.full(len(symbols), TEXT_TABLE)

    lanes = lane_count(max(sum(part.symbols for part in builder.parts.values()), builder.weights))
    states, words = rans_encode(last_first(), np.stack([frequencies(each) for each in logs]), lanes)
    head = MAGIC + struct.pack("<4I", len(text), len(tables), lanes, len(words))
    body = head + tables + states.tobytes() + words.tobytes()
    return body + struct.pack("<I", zlib.crc32(body))


def _check(name: str, tensor: Tensor) -> None:
    if isinstance(tensor, QuantizedTensor):
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
                where=f"tensor `{name}`",
                hint="levels are int8; scales float16 (rows,) or float32 (1,)",
            )
    elif tensor.dtype.kind not in "fiub":
        raise CodecError(f"has dtype {tensor.dtype}, which an artifact cannot hold", where=f"tensor `{name}`")


def _weights(tensor: Tensor) -> int:
    """Empty sides counted as 1, as the decoder does."""
    shape = tensor.levels.shape if isinstance(tensor, QuantizedTensor) else tensor.shape
    return math.prod(max(side, 1) for side in shape)


def _distinct(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """(first occurrence of every distinct tensor, position in name order of what each other one repeats)."""
    distinct: dict[str, Tensor] = {}
    ties: dict[str, int] = {}
    seen: dict[bytes, int] = {}
    for position, (name, tensor) in enumerate(tensors.items()):
        parts = [each for each in tensor if each is not None] if isinstance(tensor, QuantizedTensor) else [tensor]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        first = seen.setdefault(digest.digest(), position)
        if first == position:
            distinct[name] = tensor
        else:
            ties[name] = first
    return distinct, ties
