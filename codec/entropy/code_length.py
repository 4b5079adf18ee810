"""What symbols cost under a stored table, in 1/1024 bits: integers, so that every platform decides the same."""

import numpy as np

from codec.decoder import PRECISION, frequencies
from codec.entropy.rans import table_logs

COST_UNIT = 1024  # of a bit; no log2 of 1..2**14 lies near a rounding boundary there
COSTS = np.rint((PRECISION - np.log2(np.arange(1, (1 << PRECISION) + 1))) * COST_UNIT).astype(np.int64)


def table_cost(counts: np.ndarray) -> int:
    """counts: int64 (symbols,) -> what coding them and storing their table costs."""
    if not counts.any():
        return 2 * 8 * COST_UNIT
    logs = table_logs(counts)
    return int(counts @ symbol_costs(logs)[: len(counts)]) + (1 + len(logs)) * 8 * COST_UNIT


def symbol_costs(logs: np.ndarray) -> np.ndarray:
    """A stored table -> int64 (256,): cost of each symbol; absent symbols cost 2**30."""
    table = frequencies(logs)
    return np.where(table > 0, COSTS[np.maximum(table, 1) - 1], 1 << 30)


def smooth_costs(counts: np.ndarray) -> np.ndarray:
    """counts: int64 (tables, symbols) -> cost of each symbol under each table, while tables are still being chosen.

    One part in 4,096 of the common histogram keeps what a table has not seen yet finite.
    """
    common = counts.sum(0) + 1
    return np.stack([symbol_costs(table_logs(4096 * row + common))[: counts.shape[1]] for row in counts])


def class_costs(counts: np.ndarray) -> np.ndarray:
    """counts: int64 (classes,), how often each occurs -> int64 (256,): what naming one costs, unseen ones too."""
    return symbol_costs(table_logs(np.pad(counts, (0, 256 - len(counts))) * 256 + 1))
