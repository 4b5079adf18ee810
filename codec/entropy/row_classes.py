"""Contexts by spread: rows and columns whose levels have about the same root mean square share a table."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 1 << 20  # numbers worked on at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Contexts:
    """Which table codes which level of a matrix: table base + class of its segment of the row + class of its column.

    rows: int64 (rows * segments,), row by row, 0 to 255, where every row is cut into equal segments.
    columns: int64 (columns,), 0 to 255.  counts: int64 (tables, symbols), what falls into table base + t.
    """

    base: int
    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray


def symbols_of(levels: np.ndarray, lowest: int) -> np.ndarray:
    """int8 levels -> uint8, counted from the lowest."""
    return levels.view(np.uint8) - np.uint8(lowest & 255)


def folded(halves: np.ndarray) -> np.ndarray:
    """int8 -> uint8: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return (halves << 1 ^ halves >> 7).view(np.uint8)


def histograms(symbols: np.ndarray, tables: np.ndarray, width: int) -> np.ndarray:
    """int64 (tables, width): how often each symbol falls into each table; tables broadcasts to symbols."""
    size = int(tables.max(initial=-1)) + 1
    return np.bincount((tables * width + symbols).ravel(), minlength=size * width).reshape(size, width)


def row_histograms(symbols: np.ndarray, width: int) -> np.ndarray:
    """(rows, width), of the smallest dtype that counts to a row's length: short rows need more room than they have."""
    found = np.empty((len(symbols), width), np.min_scalar_type(symbols.shape[1]))
    for block in blocks(len(symbols), max(symbols.shape[1], width)):
        rows = symbols[block]
        found[block] = histograms(rows, np.arange(len(rows))[:, None], width)
    return found


def merged(row_counts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Sum the histograms of rows of one class -> int64 (classes, symbols)."""
    sums = np.zeros((int(classes.max(initial=-1)) + 1, row_counts.shape[1]), np.int64)
    for block in blocks(*row_counts.shape):
        order = np.argsort(classes[block], kind="stable")
        present, starts = np.unique(classes[block][order], return_index=True)
        sums[present] += np.add.reduceat(row_counts[block][order], starts, dtype=np.int64)
    return sums


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of a matrix whose 64-bit copies stay below 8 MiB (one row at least)."""
    size = max(BLOCK // max(columns, 1), 1)
    return (slice(start, start + size) for start in range(0, rows, size))


def one_table(row_counts: np.ndarray, columns: int, base: int = 0) -> Contexts:
    """Every level under table `base`."""
    return Contexts(
        base=base,
        rows=np.zeros(len(row_counts), np.int64),
        columns=np.zeros(columns, np.int64),
        counts=row_counts.sum(0, np.int64, keepdims=True),
    )


def spread_contexts(levels: np.ndarray, symbols: np.ndarray, row_counts: np.ndarray, step: int) -> list[Contexts]:
    """Classes by the spread of the whole matrix, its rows, its columns, both; step: classes per octave."""
    row_count, column_count = levels.shape
    no_rows, no_columns = np.zeros(row_count, np.int64), np.zeros(column_count, np.int64)
    squares = levels.astype(np.int64) ** 2
    whole = int(_spread(squares.sum()[None], levels.size, step)[0])
    found = [one_table(row_counts, column_count, whole)]
    if not levels.size:
        return found
    by_row = _spread(squares.sum(1), column_count, step)
    by_column = _spread(squares.sum(0), row_count, step)
    low_row, low_column = int(by_row.min()), int(by_column.min())
    by_row, by_column = by_row - low_row, by_column - low_column
    width = row_counts.shape[1]
    column_counts = histograms(symbols, by_column[None], width)
    both_counts = histograms(symbols, by_row[:, None] + by_column, width)
    return [
        *found,
        Contexts(base=low_row, rows=by_row, columns=no_columns, counts=merged(row_counts, by_row)),
        Contexts(base=low_column, rows=no_rows, columns=by_column, counts=column_counts),
        Contexts(base=low_row + low_column - whole, rows=by_row, columns=by_column, counts=both_counts),
    ]


def _spread(energies: np.ndarray, count: int, step: int) -> np.ndarray:
    """Class of the root of energies / count: floor(step * log2(64 rms)), at least 0, by integers."""
    thresholds = np.array([round(2.0 ** (2 * k / step)) for k in range(14 * step)])
    return np.searchsorted(thresholds, (energies.astype(np.int64) << 12) // max(count, 1), "right")
