"""Who costs what inside an artifact: bytes and bits per weight, per tensor and in total."""

import dataclasses
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import PRECISION, Form, QuantizedTensor, Stream, open_artifact, read_tensors
from codec.entropy.level_tables import level_bits
from codec.entropy.planes import arrays_of, coded_levels
from codec.html import Shown

SIDE_INFORMATION = ("row_classes", "column_classes", "multiples", "low_references", "high_references")
LEVELS = ("levels", "low_far", "high_far")
PART = 1 << 16  # symbols that are looked up at once: each takes 24 bytes then


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorCost:
    """One tensor.  *_bytes are exact code lengths (fractions of a byte included); entropy_bits is the empirical
    order-0 entropy of its own levels (of a trellis: of their halves) times their number: what an ideal static coder
    with free tables would need (0 for a plain tensor, which has no levels).
    quantized: whether it has levels; a tie has neither.
    stored_as: the smallest integer that holds its levels, or its dtype, or `tied`.
    weights: none in a copy, as a tied head is one; equal tensors that hold one value everywhere are no copies.
    """

    name: str
    stored_as: str
    quantized: bool
    weights: int
    payload_bytes: float  # levels, or the bytes of a plain tensor
    scale_bytes: float
    column_step_bytes: float  # 0 where they are those of an earlier tensor
    class_bytes: float  # classes and predictions
    entropy_bits: float

    @property
    def bytes(self) -> float:
        return self.payload_bytes + self.scale_bytes + self.column_step_bytes + self.class_bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights if self.weights else 0.0

    @property
    def over_entropy_percent(self) -> float | None:
        """All its bytes over the entropy of the levels plus scales and column steps as coded; None without levels."""
        ideal = self.entropy_bits / 8 + self.scale_bytes + self.column_step_bytes
        return 100 * (self.bytes / ideal - 1) if self.quantized and ideal else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteLedger(Shown):
    """Every byte of an artifact: sum(row.bytes) + header + tables + lanes = artifact_bytes."""

    rows: tuple[TensorCost, ...]
    header_bytes: float  # fixed fields, checksum, and the coded text of names, forms and metadata
    table_bytes: int
    quantized_table_bytes: int  # of these, the tables under which quantized tensors are coded
    lane_bytes: float  # states, and what rounding to 16-bit words costs
    artifact_bytes: int

    @property
    def weights(self) -> int:
        return sum(row.weights for row in self.rows)

    @property
    def entropy_bits(self) -> float:
        return sum(row.entropy_bits for row in self.rows)

    @property
    def level_bytes(self) -> float:
        """Of all quantized tensors: levels and classes as coded."""
        return sum(row.payload_bytes + row.class_bytes for row in self.rows if row.quantized)

    @property
    def scale_bytes(self) -> float:
        return sum(row.scale_bytes for row in self.rows)

    @property
    def column_step_bytes(self) -> float:
        return sum(row.column_step_bytes for row in self.rows)

    @property
    def plain_bytes(self) -> float:
        """Of all tensors that are not quantized."""
        return sum(row.bytes for row in self.rows if not row.quantized)

    @property
    def overhead_percent(self) -> float:
        """What quantized tensors cost over the order-0 entropy of the levels of each, plus scales and column steps.

        Their cost: levels, classes, scales, column steps, the tables of all these, and their share of the lanes.
        Nothing of the plain tensors is in it, nor of the header.  Scales and column steps count as they are coded.
        Below 0 where rows of different spread pay for their classes.
        """
        steps = self.scale_bytes + self.column_step_bytes
        coded = self.level_bytes + steps
        lanes = self.lane_bytes * coded / (coded + self.plain_bytes) if coded else 0.0
        ideal = self.entropy_bits / 8 + steps
        return 100 * ((coded + self.quantized_table_bytes + lanes) / ideal - 1) if ideal else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Of the whole artifact, everything included."""
        return 8 * self.artifact_bytes / max(self.weights, 1)

    def to_dict(self) -> dict[str, Any]:
        names = [*TensorCost.__dataclass_fields__, "bytes", "bits_per_weight"]
        rows = [{name: getattr(row, name) for name in names} for row in self.rows]
        return {
            "artifact_bytes": self.artifact_bytes,
            "weights": self.weights,
            "bits_per_weight": self.bits_per_weight,
            "header_bytes": self.header_bytes,
            "table_bytes": self.table_bytes,
            "quantized_table_bytes": self.quantized_table_bytes,
            "lane_bytes": self.lane_bytes,
            "tensors": rows,
        }


def copies(tensors: Mapping[str, np.ndarray]) -> frozenset[str]:
    """Names of tensors that are bit by bit another one, first by name, as a tied head is the embedding.

    Tensors that are equal because each holds one value everywhere are no copies: zeros may be trained apart.
    """
    seen: set[bytes] = set()
    found: list[str] = []
    for name in sorted(tensors):
        array = tensors[name]
        if array.size < 2 or (array == array.flat[0]).all():
            continue
        content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).digest()
        found += [name] if content in seen else []
        seen.add(content)
    return frozenset(found)


def ledger(blob: bytes, copied: Collection[str] = ()) -> ByteLedger:
    """Decode an artifact and add up the code length of every plane.

    copied: tensors that were copies before they were treated; of two treatments they are stored twice, and still are
    no weights.

    Raises: CodecError as `codec.decode`.
    """
    stream, header = open_artifact(blob, _Meter)
    assert isinstance(stream, _Meter)
    text_bytes = stream.cost["text"]
    tensors = read_tensors(stream, header)
    costs = iter(stream.costs)
    users = np.zeros((len(stream.bits), 2), bool)  # of each table: plain tensors, quantized ones
    rows: list[TensorCost] = []
    ties: dict[int, TensorCost] = {}  # a tensor with many names is looked at twice: as itself, and as a tie
    for (name, tensor), (_, _, form) in zip(tensors.items(), header["names"], strict=True):
        cost, used = ({}, []) if form < 0 else next(costs)
        if form >= 0:
            row = _row(name, tensor, False, cost)
        elif id(tensor) in ties:
            row = dataclasses.replace(ties[id(tensor)], name=name)
        else:
            row = ties[id(tensor)] = _row(name, tensor, True, cost)
        rows.append(dataclasses.replace(row, weights=0) if name in copied else row)
        users[used, int(rows[-1].quantized)] = True
    table_bytes = int.from_bytes(blob[8:12], "little")
    header_bytes = 24 + text_bytes
    coded = sum(row.bytes for row in rows)
    return ByteLedger(
        rows=tuple(rows),
        header_bytes=header_bytes,
        table_bytes=table_bytes,
        quantized_table_bytes=_quantized_table_bytes(blob, users),
        artifact_bytes=len(blob),
        lane_bytes=len(blob) - header_bytes - table_bytes - coded,
    )


def of_submission(
    costs: ByteLedger, code_bytes: int, modules: Sequence[str], fit: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """ledger.json of a submission: its code, by the modules the script carries, and its artifact.

    fit: the plan behind fitted steps.
    Floats have 3 decimals: code lengths come from log2, whose last digit may differ between platforms.
    """
    return {
        "total_bytes": code_bytes + costs.artifact_bytes,
        "code": {"bytes": code_bytes, "modules": [*modules]},
        "artifact": _rounded(costs.to_dict()),
        **({"fit": _rounded(fit)} if fit else {}),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None  # JSON has no infinity
    return value


def empirical_entropy_bits(symbols: np.ndarray) -> float:
    """Order-0 entropy of integer symbols, times their number, in bits."""
    if not symbols.size:
        return 0.0
    counts = np.bincount((symbols - symbols.min().astype(np.int64)).ravel())  # a trellis' spread is 131,073 at most
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) + 0.0


class _Meter(Stream):
    """A Stream that notes what the planes of each tensor cost, by name, and under which tables they were coded.

    costs: of each tensor bytes by name of the plane, and the tables used; cost, used: of the one at work.
    """

    def __init__(self, frequencies: np.ndarray, states: np.ndarray, words: np.ndarray) -> None:
        super().__init__(frequencies, states, words)
        self.bits = PRECISION - np.log2(np.maximum(frequencies, 1))
        self.costs: list[tuple[dict[str, float], list[int]]] = []
        self._begin()

    def _begin(self) -> None:
        self.cost: dict[str, float] = {}
        self.used: list[int] = []

    def tensor(self, form: Form, steps: dict[int, list[np.ndarray]]) -> QuantizedTensor | np.ndarray:
        self._begin()
        found = super().tensor(form, steps)
        self.costs.append((self.cost, self.used))
        return found

    def plane(self, name: str, shape: tuple[int, ...], tables: Any) -> np.ndarray:
        symbols = super().plane(name, shape, tables)
        every, flat = np.broadcast_to(tables, shape).reshape(-1), symbols.reshape(-1)
        for start in range(0, len(flat), PART):
            part, coded = every[start : start + PART], flat[start : start + PART]
            self.cost[name] = self.cost.get(name, 0.0) + float(self.bits[part, coded].sum()) / 8
            self.used += np.flatnonzero(np.bincount(part)).tolist()
        return symbols


def _quantized_table_bytes(blob: bytes, users: np.ndarray) -> int:
    """users: bool (tables, 2), as above.  Tables that nothing uses are gaps between classes: as the one before them."""
    total, at, quantized = 0, 20, False
    for plain, levels in users[1:]:  # table 0 is not stored
        quantized = levels or (quantized and not plain)
        size = blob[at] + 2
        total += size if quantized else 0
        at += size
    return total


def _row(name: str, tensor: QuantizedTensor | np.ndarray, tied: bool, cost: dict[str, float]) -> TensorCost:
    """cost: bytes of each of its planes, by name."""
    levels = coded_levels(tensor) if isinstance(tensor, QuantizedTensor) else None
    content = sum(each for plane, each in cost.items() if plane.startswith("byte_"))
    main = arrays_of(tensor)[0]
    matrix = sum(cost.get(plane, 0.0) for plane in LEVELS)
    return TensorCost(
        name=name,
        stored_as="tied" if tied else _stored_as(tensor),
        quantized=levels is not None and not tied,
        weights=0 if tied and main.size > 1 and (main != main.flat[0]).any() else main.size,
        payload_bytes=content + matrix if levels is None else matrix,
        scale_bytes=0.0 if levels is None else content + cost.get("row_steps", 0.0),
        column_step_bytes=cost.get("column_steps", 0.0),
        class_bytes=sum(cost.get(plane, 0.0) for plane in SIDE_INFORMATION),
        entropy_bits=0.0 if levels is None or tied else empirical_entropy_bits(levels),
    )


def _stored_as(tensor: QuantizedTensor | np.ndarray) -> str:
    if not isinstance(tensor, QuantizedTensor):
        return str(tensor.dtype)
    if tensor.trellis:
        return "trellis" if any(tensor.trellis[:2]) else "uniform"
    per_tensor = tensor.scales.dtype == np.float32
    return f"int{level_bits(tensor.levels)}{' per tensor' if per_tensor else ''}"
