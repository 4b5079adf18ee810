"""Rows, or their segments, of similar histograms: weights that were quantized before lie on lattices of their own.

Quantizers that share a scale among 128 or 64 weights leave a lattice to each such segment: a class for every
segment takes 5 % off the bytes of a ternary model that is quantized to int6.
"""

from collections.abc import Sequence

import numpy as np

from codec.entropy.code_length import class_costs, smooth_costs, table_cost
from codec.entropy.row_classes import Contexts, blocks, merged, one_table, row_histograms

SEGMENTS = (128, 64)  # columns
SAMPLED_ROWS = 4096  # about, on which clusters are found
SAMPLED_WEIGHTS = 1 << 17  # on which it is seen whether segments are worth a trial: 1,024 segments of 128
SAMPLED_CLUSTERS = 12


def cluster_contexts(counts: Sequence[np.ndarray], columns: Sequence[int], clusters: int) -> list[list[Contexts]]:
    """Histograms of all rows (or segments) clustered together; per matrix: its best single cluster, or one per row."""
    classes, merged_counts = _clustered(counts, clusters)
    costs = smooth_costs(merged_counts).T
    found = []
    for own, rows, width in zip(counts, classes, columns, strict=True):
        either = [one_table(own, width, int((own.sum(0, np.int64) @ costs).argmin()))]
        if len(own):
            low = int(rows.min())
            no_columns = np.zeros(width, np.int64)
            either.append(Contexts(base=low, rows=rows - low, columns=no_columns, counts=merged(own, rows - low)))
        found.append(either)
    return found


def segment_histograms(symbols: Sequence[np.ndarray], segment: int, width: int) -> list[np.ndarray]:
    """(rows * segments, width) of each matrix; of whole rows where the columns are no multiple of `segment`."""
    return [row_histograms(_cut(each, segment), width) for each in symbols]


def worthy_segments(symbols: Sequence[np.ndarray], width: int) -> list[int]:
    """Of SEGMENTS, those that save bits in a sample of the rows."""
    weights = sum(each.size for each in symbols)
    if not weights:
        return []
    sample = [each[:: weights // SAMPLED_WEIGHTS + 1] for each in symbols]
    whole = _estimate([row_histograms(each, width) for each in sample])
    return [segment for segment in SEGMENTS if _estimate(segment_histograms(sample, segment, width)) < whole]


def _estimate(counts: Sequence[np.ndarray]) -> int:
    """What rows with these histograms cost in a few clusters, tables and classes included, in 1/1024 bits."""
    classes, merged_counts = _clustered(counts, SAMPLED_CLUSTERS)
    return sum(table_cost(each) for each in (*merged_counts, np.bincount(np.concatenate(classes))))


def _cut(symbols: np.ndarray, segment: int) -> np.ndarray:
    columns = symbols.shape[1]
    return symbols.reshape(-1, segment) if columns and columns % segment == 0 else symbols


def _clustered(counts: Sequence[np.ndarray], clusters: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Histograms (rows, symbols) of each matrix -> (class of each of its rows, int64 (classes, symbols) of all).

    By Lloyd's iteration on code length.
    """
    sample = _sampled(counts)
    classes = _start(sample, clusters)
    for _ in range(5):  # the cost falls by less than 0.01 % after that
        classes = _cheapest(sample, *_prices(sample, classes))
    prices = _prices(sample, classes)
    found = [_cheapest(each, *prices) for each in counts]
    totals = np.zeros((1 + max(int(each.max(initial=0)) for each in found), sample.shape[1]), np.int64)
    for own, rows in zip(counts, found, strict=True):
        sums = merged(own, rows)
        totals[: len(sums)] += sums
    return found, totals


def _sampled(counts: Sequence[np.ndarray]) -> np.ndarray:
    """int64: every n-th row, counted over all matrices."""
    every = sum(len(each) for each in counts) // SAMPLED_ROWS + 1
    rows, start = [], 0
    for each in counts:
        rows.append(each[-start % every :: every])
        start += len(each)
    return np.concatenate(rows).astype(np.int64)


def _prices(sample: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64: cost of each symbol in each cluster (symbols, clusters), and of naming the cluster (clusters,)."""
    costs = smooth_costs(merged(sample, classes)).T.astype(np.float64)
    return costs, class_costs(np.bincount(classes))[: costs.shape[1]].astype(np.float64)


def _cheapest(counts: np.ndarray, costs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The cluster that codes each row in the fewest bits.  Integers below 2**53: products are exact in any order."""
    classes = np.empty(len(counts), np.int64)
    for block in blocks(len(counts), max(counts.shape[1], len(shares))):
        classes[block] = (counts[block].astype(np.float64) @ costs + shares).argmin(1)
    return classes


def _start(counts: np.ndarray, clusters: int) -> np.ndarray:
    """Starting classes of the rows of int64 histograms: those that use one set of symbols, else those of equal cost."""
    masks = np.packbits(counts > 0, axis=1)
    supports, support = np.unique(masks.view(f"V{masks.shape[1]}").ravel(), return_inverse=True)
    sizes = np.bincount(support, minlength=len(supports))
    common = np.argsort(-sizes, kind="stable")[: clusters - 1]
    if 2 * sizes[common].sum() > len(counts):
        place = np.full(len(supports), len(common))
        place[common] = np.arange(len(common))
        return place[support]
    costs = smooth_costs(counts.sum(0, keepdims=True))[0]
    order = np.argsort((counts @ costs) // np.maximum(counts.sum(1), 1), kind="stable")
    classes = np.empty(len(counts), np.int64)
    classes[order] = np.arange(len(counts)) * clusters // max(len(counts), 1)
    return classes
