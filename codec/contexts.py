"""Which frequency table codes which level: tensors, rows and columns sorted into classes of equal spread.

Levels of rows (and columns) that differ in spread should not share one table: on absmax int6 that is worth
1 to 3 % of the bytes.  Every class is one step of log2(rms); table number = base + class of the row + class
of the column, so the decoder needs one addition.  The tables themselves are histograms: no family is assumed.
Decisions are made on integers only, so that the bytes are the same on every platform.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import PRECISION, frequencies
from codec.rans import table_logs

STEPS = (0, 1, 2, 4)  # classes per octave of rms that are tried; 0 = one class for everything
MODES = ("tensor", "row", "column", "both")
COST_UNIT = 1024  # costs are integers in 1/1024 bit; no log2 of 1..2**14 lies near a rounding boundary there
COSTS = np.rint((PRECISION - np.log2(np.arange(1, (1 << PRECISION) + 1))) * COST_UNIT).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contexts:
    """base: first table, relative to the group's; rows, columns: uint8 classes, or None when all are 0."""

    base: int
    rows: np.ndarray | None
    columns: np.ndarray | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """Contexts of each tensor of a group, and the counts (tables, 256) of its levels in every table."""

    contexts: tuple[Contexts, ...]
    counts: np.ndarray
    row_counts: np.ndarray
    column_counts: np.ndarray
    cost_bits: float


def table_cost(counts: np.ndarray) -> int:
    """counts: int64 (symbols,) -> what coding them and storing their table costs, in 1/1024 bits."""
    if not counts.any():
        return 2 * 8 * COST_UNIT
    logs = table_logs(counts)
    return int(counts @ symbol_costs(logs)[: len(counts)]) + (1 + len(logs)) * 8 * COST_UNIT


def symbol_costs(logs: np.ndarray) -> np.ndarray:
    """A stored table -> int64 (256,): cost of each symbol in 1/1024 bits; absent symbols cost 2**30."""
    table = frequencies(logs)
    return np.where(table > 0, COSTS[np.maximum(table, 1) - 1], 1 << 30)


def group(levels: Sequence[np.ndarray], lowest_level: int) -> Grouping:
    """levels: int8 (rows, columns) of each tensor -> the cheapest grouping found."""
    return min((_group(levels, lowest_level, step) for step in STEPS), key=lambda found: found.cost_bits)


def _group(levels: Sequence[np.ndarray], lowest_level: int, step: int) -> Grouping:
    modes = ("tensor",) if step == 0 else MODES
    candidates = [[_classes(tensor.astype(np.int64), step, mode) for mode in modes] for tensor in levels]
    lowest = min((base for each in candidates for base, _, _ in each), default=0)
    highest = max(
        (
            base + int(rows.max(initial=0)) + int(columns.max(initial=0))
            for each in candidates
            for base, rows, columns in each
        ),
        default=0,
    )
    size = highest - lowest + 1
    symbols = [tensor.astype(np.int64) - lowest_level for tensor in levels]
    histograms = [
        [_histogram(tensor, base - lowest + rows[:, None] + columns, size) for base, rows, columns in each]
        for tensor, each in zip(symbols, candidates, strict=True)
    ]
    chosen = [len(modes) - 1] * len(symbols)
    for _ in range(3):  # the choice changes the tables and the tables the choice; it settles in two rounds
        counts = _total((each[mode] for each, mode in zip(histograms, chosen, strict=True)), (size, 256))
        picked = [each[mode][1:] for each, mode in zip(candidates, chosen, strict=True)]
        # One part in 4,096 of the group's own histogram keeps unseen symbols finite while choosing.
        costs = np.stack([symbol_costs(table_logs(4096 * row + counts.sum(0) + 1)) for row in counts])
        planes = [_plane_costs([classes[axis] for classes in picked]) for axis in (0, 1)]
        previous, chosen = (
            chosen,
            [
                int(
                    np.argmin(
                        [
                            int((histogram * costs).sum())
                            + _plane_cost(rows, planes[0])
                            + _plane_cost(columns, planes[1])
                            for histogram, (_, rows, columns) in zip(own, each, strict=True)
                        ]
                    )
                )
                for own, each in zip(histograms, candidates, strict=True)
            ],
        )
        if chosen == previous:
            break
    return _finish(candidates, histograms, chosen, lowest, size)


def _finish(candidates: list[Any], histograms: list[Any], chosen: list[int], lowest: int, size: int) -> Grouping:
    counts = _total((each[mode] for each, mode in zip(histograms, chosen, strict=True)), (size, 256))
    used = np.flatnonzero(counts.any(1))
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    contexts, planes = [], [np.zeros(256, np.int64), np.zeros(256, np.int64)]
    for each, mode in zip(candidates, chosen, strict=True):
        base, rows, columns = each[mode]
        kept = []
        for axis, classes in enumerate((rows, columns)):
            if classes.any():
                planes[axis] += np.bincount(classes, minlength=256)
            kept.append(classes.astype(np.uint8) if classes.any() else None)
        contexts.append(Contexts(base=base - lowest - first, rows=kept[0], columns=kept[1]))
    counts = counts[first : last + 1]
    cost = sum(table_cost(row) for row in counts) + sum(table_cost(plane) for plane in planes if plane.any())
    return Grouping(
        contexts=tuple(contexts),
        counts=counts,
        row_counts=planes[0],
        column_counts=planes[1],
        cost_bits=cost / COST_UNIT,
    )


def _classes(tensor: np.ndarray, step: int, mode: str) -> tuple[int, np.ndarray, np.ndarray]:
    """(base, row classes, column classes), each class counted from the tensor's lowest."""
    row_count, column_count = tensor.shape
    rows, columns = np.zeros(row_count, np.int64), np.zeros(column_count, np.int64)
    if not tensor.size or step == 0:
        return 0, rows, columns
    squares = tensor * tensor
    whole = int(_spread(squares.sum()[None], tensor.size, step)[0])
    if mode in ("row", "both"):
        rows = _spread(squares.sum(1), column_count, step)
    if mode in ("column", "both"):
        columns = _spread(squares.sum(0), row_count, step)
    base = {"tensor": whole, "row": 0, "column": 0, "both": -whole}[mode]
    low_row, low_column = int(rows.min()), int(columns.min())
    return base + low_row + low_column, rows - low_row, columns - low_column


def _spread(energies: np.ndarray, count: int, step: int) -> np.ndarray:
    """Class of mean squares energies / count: floor(step * log2(rms)) shifted to be positive, by integers."""
    # 2**(2k / step) as a fraction of 2**16; half an octave of mean square is a quarter-octave step of rms.
    thresholds = np.array([round(2.0 ** (2 * k / step)) for k in range(4 * step, 14 * step)])
    return np.searchsorted(thresholds, (energies.astype(np.int64) << 12) // max(count, 1), "right")


def _histogram(symbols: np.ndarray, tables: np.ndarray, size: int) -> np.ndarray:
    flat = np.bincount((tables * 256 + symbols).ravel(), minlength=size * 256)
    return flat.reshape(size, 256)


def _total(histograms: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    total = np.zeros(shape, np.int64)
    for histogram in histograms:
        total += histogram
    return total


def _plane_costs(planes: list[np.ndarray]) -> np.ndarray:
    counts = _total((np.bincount(plane, minlength=256)[None] for plane in planes if plane.any()), (1, 256))[0]
    return symbol_costs(table_logs(counts * 256 + 1))


def _plane_cost(classes: np.ndarray, costs: np.ndarray) -> int:
    return int(costs[classes].sum()) if classes.any() else 0
