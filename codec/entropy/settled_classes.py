"""Classes of rows and columns moved, one at a time, to where their levels are cheapest.

The spread of a row says little about how its levels are spread over columns of different classes, and rounding both to
classes can put a level a whole class away.  Asking the tables themselves takes 0.6 % off the bytes of a trellis at 2.5
bits per weight (benchmarks/README.md).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from codec.entropy.code_length import class_costs, smooth_costs
from codec.entropy.row_classes import Contexts, blocks, histograms

ROUNDS = 3  # the first brings most of it


def settled(picked: Sequence[Contexts], symbols: Sequence[np.ndarray], width: int) -> list[Contexts]:
    """picked: of each matrix, one class per row and column.  symbols: uint8 (rows, columns) of each, below width.

    Each round tells every row, then every column, to stay or to move to a neighbouring class, under the tables of the
    round before.  By integers only.
    """
    found = list(picked)
    for _ in range(ROUNDS):
        lowest = min(each.base for each in found)
        size = max(each.base + len(each.counts) for each in found) - lowest
        totals = np.zeros((size, width), np.int64)
        for each in found:
            totals[each.base - lowest :][: len(each.counts)] += each.counts
        costs = smooth_costs(totals).astype(np.int32)
        rows, columns = (
            class_costs(np.sum([np.bincount(getattr(each, axis), minlength=256) for each in found], 0))
            for axis in ("rows", "columns")
        )
        found = [
            _moved(each, own, costs, each.base - lowest, rows, columns)
            for each, own in zip(found, symbols, strict=True)
        ]
    return found


def _moved(
    contexts: Contexts, symbols: np.ndarray, costs: np.ndarray, base: int, row_prices: np.ndarray, prices: np.ndarray
) -> Contexts:
    """costs: int32 (tables, symbols).  base: number of the first of them.  row_prices, prices: of naming a class."""
    rows = _cheapest(contexts.rows, contexts.columns, symbols, costs, base, row_prices)
    columns = _cheapest(contexts.columns, rows, symbols.T, costs, base, prices)
    width = costs.shape[1]
    counts = np.zeros((int(rows.max(initial=0) + columns.max(initial=0)) + 1, width), np.int64)
    for block in blocks(*symbols.shape):
        own = histograms(symbols[block], rows[block, None] + columns, width)
        counts[: len(own)] += own
    return dataclasses.replace(contexts, rows=rows, columns=columns, counts=counts)


def _cheapest(
    classes: np.ndarray, others: np.ndarray, symbols: np.ndarray, costs: np.ndarray, base: int, prices: np.ndarray
) -> np.ndarray:
    """int64, as classes: each the cheapest of itself and its neighbours.  symbols: uint8 (classes, others)."""
    tables, width = costs.shape
    highest = min(tables - 1 - base - int(others.max(initial=0)), 255)
    found = classes.copy()
    for block in blocks(len(classes), len(others)):
        least = np.full(len(classes[block]), np.iinfo(np.int64).max)
        for step in (0, -1, 1):
            wanted = classes[block] + step
            allowed = (wanted >= 0) & (wanted <= highest)
            place = (base + wanted.clip(0, highest)[:, None] + others) * width + symbols[block]
            price = costs.ravel().take(place).sum(1, dtype=np.int64) + prices[wanted.clip(0, 255)]
            better = allowed & (price < least)
            found[block] = np.where(better, wanted, found[block])
            least = np.where(better, price, least)
    return found
