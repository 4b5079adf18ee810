"""Who costs what inside an artifact: bytes and bits per weight, per tensor and in total."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import PRECISION, QuantizedTensor, Stream, open_artifact, read_tensors
from codec.quantize import level_bits


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorCost:
    """One tensor.  *_bytes are exact code lengths (fractions of a byte included); entropy_bits is the empirical
    order-0 entropy of its own levels times their number: what an ideal static coder with free tables would need
    (0 for a plain tensor, which has no levels).
    """

    name: str
    treatment: str
    weights: int
    payload_bytes: float  # levels, or the bytes of a plain tensor
    scale_bytes: float
    class_bytes: float
    entropy_bits: float

    @property
    def bytes(self) -> float:
        return self.payload_bytes + self.scale_bytes + self.class_bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights if self.weights else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteLedger:
    """Every byte of an artifact: sum(row.bytes) + header + tables + lanes = artifact_bytes."""

    rows: tuple[TensorCost, ...]
    header_bytes: float  # fixed fields, checksum, and the coded text of names, forms and metadata
    table_bytes: int
    lane_bytes: float  # states, and what rounding to 16-bit words costs
    artifact_bytes: int

    @property
    def weights(self) -> int:
        return sum(row.weights for row in self.rows)

    @property
    def entropy_bits(self) -> float:
        return sum(row.entropy_bits for row in self.rows)

    @property
    def overhead_percent(self) -> float:
        """Levels as coded, with their classes, all tables and lanes, over the levels' empirical entropy."""
        coded = sum(row.payload_bytes + row.class_bytes for row in self.rows if row.entropy_bits)
        model = self.table_bytes + self.lane_bytes
        return 100 * (8 * (coded + model) / self.entropy_bits - 1) if self.entropy_bits else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Of the whole artifact, everything included."""
        return 8 * self.artifact_bytes / max(self.weights, 1)

    def to_dict(self) -> dict[str, Any]:
        rows = [
            {**dataclasses.asdict(row), "bytes": row.bytes, "bits_per_weight": row.bits_per_weight} for row in self.rows
        ]
        return {
            "artifact_bytes": self.artifact_bytes,
            "weights": self.weights,
            "bits_per_weight": self.bits_per_weight,
            "header_bytes": self.header_bytes,
            "table_bytes": self.table_bytes,
            "lane_bytes": self.lane_bytes,
            "tensors": rows,
        }


def ledger(blob: bytes) -> ByteLedger:
    """Decode an artifact and add up the code length of every plane.

    Raises: CodecError as `codec.decode`.
    """
    stream, header = open_artifact(blob, _Meter)
    assert isinstance(stream, _Meter)
    text_bits = stream.bits.pop()
    tensors = read_tensors(stream, header)
    bits = iter(stream.bits)
    rows = tuple(
        _row(name, tensor, form, header["forms"], bits)
        for (name, tensor), (_, _, form) in zip(tensors.items(), header["names"], strict=True)
    )
    table_bytes = int.from_bytes(blob[8:12], "little")
    header_bytes = 24 + text_bits / 8
    coded = sum(row.bytes for row in rows)
    return ByteLedger(
        rows=rows,
        header_bytes=header_bytes,
        table_bytes=table_bytes,
        artifact_bytes=len(blob),
        lane_bytes=len(blob) - header_bytes - table_bytes - coded,
    )


def empirical_entropy_bits(symbols: np.ndarray) -> float:
    """Order-0 entropy of integer symbols, times their number, in bits."""
    if not symbols.size:
        return 0.0
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) + 0.0


class _Meter(Stream):
    """A Stream that notes the code length of every plane it decodes, in bits."""

    def __init__(self, frequencies: np.ndarray, states: np.ndarray, words: np.ndarray) -> None:
        super().__init__(frequencies, states, words)
        self.costs = PRECISION - np.log2(np.maximum(frequencies, 1))
        self.bits: list[float] = []

    def take(self, tables: np.ndarray) -> np.ndarray:
        symbols = super().take(tables)
        self.bits.append(float(self.costs[tables, symbols].sum()))
        return symbols


def _row(name: str, tensor: QuantizedTensor | np.ndarray, form: int, forms: list[Any], bits: Any) -> TensorCost:
    if form < 0:
        size = tensor.levels.size if isinstance(tensor, QuantizedTensor) else tensor.size
        return TensorCost(
            name=name,
            treatment="tied",
            weights=size,
            payload_bytes=0.0,
            scale_bytes=0.0,
            class_bytes=0.0,
            entropy_bits=0.0,
        )
    kind, _, planes, *model = forms[form]
    plain_bytes = sum(next(bits) for _ in planes) / 8
    # Classes of rows and of columns where there are any; three planes of predictions where there are.
    class_planes = sum(1 for table in model[2:4] if table) + 3 * (len(model) > 4)
    class_bytes = sum(next(bits) for _ in range(class_planes)) / 8
    payload_bytes = next(bits) / 8 if model else 0.0
    if not isinstance(tensor, QuantizedTensor):
        return TensorCost(
            name=name,
            treatment=str(tensor.dtype),
            weights=tensor.size,
            payload_bytes=plain_bytes + payload_bytes,
            scale_bytes=0.0,
            class_bytes=class_bytes,
            entropy_bits=0.0,
        )
    suffix = "" if kind == "row" else " per tensor"
    return TensorCost(
        name=name,
        treatment=f"int{level_bits(tensor.levels)}{suffix}",
        weights=tensor.levels.size,
        payload_bytes=payload_bytes,
        scale_bytes=plain_bytes,
        class_bytes=class_bytes,
        entropy_bits=empirical_entropy_bits(tensor.levels),
    )
