"""Rows that nearly repeat: embeddings of tokens that training never met end up almost equal.

Such rows are coded as their difference from the mean of those before them: 140 of 1,024 rows of a real embedding
fall from 7.4 to 2 bits per weight.  Everything is integer arithmetic on levels, so both sides agree.
"""

from dataclasses import dataclass

import numpy as np

SEEDS = 96  # rows tried as the centre of a cluster: unused tokens are many or not worth it
CLOSE = 16  # a row belongs to a centre when their squared distance is below its energy / CLOSE (correlation 0.97)
THINNED = 64  # columns, about, on which the centre is chosen
FEWEST = 4  # rows, below which the numbers in the header cost more than they save


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """reference: a row coded as it is.  rows: int (count,), ascending, the ones coded as differences."""

    reference: int
    rows: np.ndarray


def find_repeats(levels: np.ndarray) -> Repeats | None:
    """levels: int8 (rows, columns) -> the largest cluster of nearly equal rows among a few tried centres."""
    row_count, column_count = levels.shape
    if row_count < FEWEST or column_count < 16:
        return None
    # Byte tokens come first in a vocabulary, so half of the centres are looked for there.
    spacing = min(5, row_count // SEEDS + 1)
    seeds = np.union1d(np.arange(SEEDS // 2) * spacing, np.linspace(0, row_count - 1, SEEDS // 2).astype(np.int64))
    seeds = seeds[seeds < row_count]
    thinned = levels[:, :: column_count // THINNED + 1]
    best = seeds[int(_close(thinned, seeds).sum(1).argmax())]
    rows = np.flatnonzero(_close(levels, np.array([best]))[0])
    rows = rows[rows != best]
    return Repeats(reference=int(best), rows=rows) if len(rows) >= FEWEST else None


def _close(levels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """bool (centres, rows): which rows are near which centre."""
    # Sums of products of levels are integers: below 2**24 for 256 columns, so exact in any order even in float32.
    exact = levels.astype(np.float32 if levels.shape[1] <= 256 else np.float64)
    energies = np.square(exact).sum(1)
    distances = energies[centres][:, None] + energies - 2 * exact[centres] @ exact.T
    close: np.ndarray = (distances * CLOSE < energies) & (energies > 0)
    return close


def differences(levels: np.ndarray, repeats: Repeats) -> np.ndarray:
    """int16 (len(repeats.rows), columns) in [-128, 127]: each row less the rounded mean of the rows before it."""
    total, count = levels[repeats.reference].astype(np.int64), 1
    found = np.empty((len(repeats.rows), levels.shape[1]), np.int16)
    for place, row in enumerate(repeats.rows):
        found[place] = (levels[row] - (2 * total + count) // (2 * count) + 128) % 256 - 128
        total, count = total + levels[row], count + 1
    return found
