"""Arrays -> artifact bytes: a pure function of names, values and metadata (docs/format.md)."""

import hashlib
import json
import os.path
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from codec.contexts import COST_UNIT, Contexts, Grouping, group, table_cost
from codec.decoder import MAGIC, MAX_WEIGHTS, QuantizedTensor, frequencies
from codec.errors import CodecError
from codec.prediction import differences
from codec.rans import encode as rans_encode
from codec.rans import lane_count, table_logs

Tensor = QuantizedTensor | np.ndarray
Plane = tuple[np.ndarray, np.ndarray]  # symbols uint8 (count,), table of each (count,)
TEXT_TABLE = 1  # table 0 is the uniform one


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


class _Builder:
    """Decides the tables and the form of every tensor; yields the planes to code."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.table_counts: list[np.ndarray] = [np.ones(256, np.int64), np.zeros(256, np.int64)]
        self.forms: list[list[Any]] = []
        self.names: list[tuple[int, str, int]] = []
        self.planes: list[Callable[[], list[Plane]]] = []
        self.distinct, ties = _distinct(tensors)
        byte_tables = self._byte_tables()
        self.models = self._level_models()
        previous = ""
        for name in tensors:
            shared = len(os.path.commonprefix([previous, name]))  # noqa: RUF071 (characters are meant)
            form = self._form(name, byte_tables) if name in self.distinct else -1 - ties[name]
            self.names.append((shared, name[shared:], form))
            previous = name

    def _add_table(self, counts: np.ndarray) -> int:
        self.table_counts.append(counts)
        return len(self.table_counts) - 1

    def _byte_tables(self) -> dict[tuple[str, int], int]:
        """One table per (dtype, byte position) over all plain arrays, one for scales; 0 where none pays."""
        counts: dict[tuple[str, int], np.ndarray] = {}
        for tensor in self.distinct.values():
            kind, array = _plain_part(tensor)
            for position, plane in enumerate(_byte_planes(array)):
                key = kind, position
                counts[key] = counts.get(key, np.zeros(256, np.int64)) + np.bincount(plane, minlength=256)
        return {
            key: self._add_table(each) if table_cost(each) < 8 * COST_UNIT * each.sum() else 0
            for key, each in sorted(counts.items())
        }

    def _level_models(self) -> dict[str, tuple[list[int], Contexts]]:
        """name -> ([lowest level, first table, row-class table, column-class table, repeats...], contexts)."""
        widths: dict[int, list[str]] = {}
        for name, tensor in self.distinct.items():
            if isinstance(tensor, QuantizedTensor):
                widths.setdefault(_bits(tensor.levels), []).append(name)
        models = {}
        for _, members in sorted(widths.items()):
            matrices = [_matrix(self.distinct[name]) for name in members]
            lowest = min(int(matrix.min(initial=0)) for matrix in matrices)
            grouping = group(matrices, lowest)
            first, row_table, column_table = self._add_group(grouping)
            for name, contexts in zip(members, grouping.contexts, strict=True):
                tables = [
                    row_table if contexts.rows is not None else 0,
                    column_table if contexts.columns is not None else 0,
                ]
                repeats = [contexts.repeats.reference, contexts.repeat_class] if contexts.repeats else []
                models[name] = [lowest, first + contexts.base, *tables, *repeats], contexts
        return models

    def _add_group(self, grouping: Grouping) -> tuple[int, int, int]:
        first = len(self.table_counts)
        for counts in grouping.counts:
            self._add_table(counts)
        row_table, column_table = (
            self._add_table(counts) if counts.any() else 0 for counts in (grouping.row_counts, grouping.column_counts)
        )
        return first, row_table, column_table

    def _form(self, name: str, byte_tables: dict[tuple[str, int], int]) -> int:
        tensor = self.distinct[name]
        kind, array = _plain_part(tensor)
        tables = [byte_tables[kind, position] for position in range(array.dtype.itemsize)]
        planes: list[Plane] = [
            (plane, np.full(len(plane), table)) for plane, table in zip(_byte_planes(array), tables, strict=True)
        ]
        if isinstance(tensor, QuantizedTensor):
            numbers, contexts = self.models[name]
            form = [kind, list(tensor.levels.shape), tables, *numbers]
            self.planes.append(lambda: [*planes, *_level_planes(_matrix(tensor), contexts, *numbers[:4])])
        else:
            form = [kind, list(tensor.shape), tables]
            self.planes.append(lambda: planes)
        if form not in self.forms:
            self.forms.append(form)
        return self.forms.index(form)


def _level_planes(
    matrix: np.ndarray, contexts: Contexts, lowest: int, base: int, row_table: int, column_table: int
) -> list[Plane]:
    planes: list[Plane] = []
    index = np.full(matrix.shape, base, np.int32)
    if contexts.rows is not None:
        planes.append((contexts.rows, np.full(len(matrix), row_table)))
        index += contexts.rows[:, None]
    if contexts.columns is not None:
        planes.append((contexts.columns, np.full(matrix.shape[1], column_table)))
        index += contexts.columns
    symbols = matrix.astype(np.int16) - lowest
    if contexts.repeats:
        symbols[contexts.repeats.rows] = differences(matrix, contexts.repeats) - lowest
    return [*planes, ((symbols & 255).astype(np.uint8).ravel(), index.ravel())]


def _assemble(builder: _Builder, text: bytes) -> bytes:
    symbols = np.frombuffer(text, np.uint8)
    builder.table_counts[TEXT_TABLE] = np.bincount(symbols, minlength=256)
    logs = [table_logs(counts) for counts in builder.table_counts]
    tables = b"".join(bytes([len(each) - 1]) + each.tobytes() for each in logs[1:])

    def last_first() -> Iterator[Plane]:
        for planes in reversed(builder.planes):
            yield from reversed(planes())
        yield symbols, np.full(len(symbols), TEXT_TABLE)

    lanes = lane_count(sum(_symbol_count(tensor) for tensor in builder.distinct.values()))
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


def _plain_part(tensor: Tensor) -> tuple[str, np.ndarray]:
    """What is stored byte by byte: (form kind, the scales of a quantized tensor or the plain array itself)."""
    if isinstance(tensor, QuantizedTensor):
        return ("row" if tensor.scales.dtype == np.float16 else "all"), tensor.scales
    return tensor.dtype.newbyteorder("<").str, tensor


def _byte_planes(array: np.ndarray) -> np.ndarray:
    """uint8 (itemsize, count), lowest byte first."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).ravel()
    return little.view(np.uint8).reshape(-1, array.dtype.itemsize).T


def _matrix(tensor: Tensor) -> np.ndarray:
    assert isinstance(tensor, QuantizedTensor)
    rows = len(tensor.scales)
    return tensor.levels.reshape(rows, tensor.levels.size // max(rows, 1))


def _bits(levels: np.ndarray) -> int:
    """Tensors of one bit width share their tables."""
    return max(int(levels.max(initial=0)), -1 - int(levels.min(initial=0))).bit_length() + 1


def _symbol_count(tensor: Tensor) -> int:
    _, plain = _plain_part(tensor)
    return plain.nbytes + (tensor.levels.size if isinstance(tensor, QuantizedTensor) else 0)
