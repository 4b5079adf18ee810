"""Rows, or their segments, of similar histograms: weights that were quantized before lie on lattices of their own.

Quantizers that share a scale among 128 or 64 weights leave a lattice to each such segment: a class for every
segment takes 5 % off the bytes of a ternary model that is quantized to int6.
"""

from collections.abc import Sequence

import numpy as np

from codec.costs import class_costs, smooth_costs, table_cost
from codec.layouts import Layout, merged, one_table, row_histograms

SEGMENTS = (128, 64)  # columns
SAMPLED_ROWS = 4096  # about, on which clusters are found
SAMPLED_WEIGHTS = 1 << 17  # on which it is seen whether segments are worth a trial: 1,024 segments of 128
SAMPLED_CLUSTERS = 12


def cluster_layouts(counts: Sequence[np.ndarray], columns: Sequence[int], clusters: int) -> list[list[Layout]]:
    """Histograms of all rows (or segments) clustered together; per matrix: its best single cluster, or one per row."""
    every = np.concatenate(counts)
    classes = _clustered(every, clusters)
    costs = smooth_costs(merged(every, classes)).T
    layouts, start = [], 0
    for own, width in zip(counts, columns, strict=True):
        rows = classes[start : start + len(own)]
        start += len(own)
        found = [one_table(own, width, int((own.sum(0) @ costs).argmin()))]
        if len(own):
            low = int(rows.min())
            no_columns = np.zeros(width, np.int64)
            found.append(Layout(base=low, rows=rows - low, columns=no_columns, counts=merged(own, rows - low)))
        layouts.append(found)
    return layouts


def segment_histograms(symbols: Sequence[np.ndarray], segment: int, width: int) -> list[np.ndarray]:
    """int64 (rows * parts, width) of each matrix; of whole rows where the columns are no multiple of `segment`."""
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
    every = np.concatenate(counts)
    classes = _clustered(every, SAMPLED_CLUSTERS)
    return sum(table_cost(each) for each in (*merged(every, classes), np.bincount(classes)))


def _cut(symbols: np.ndarray, segment: int) -> np.ndarray:
    columns = symbols.shape[1]
    return symbols.reshape(-1, segment) if columns and columns % segment == 0 else symbols


def _clustered(counts: np.ndarray, clusters: int) -> np.ndarray:
    """counts: int64 (rows, symbols) -> the class of each row, by Lloyd's iteration on code length."""
    every = len(counts) // SAMPLED_ROWS + 1
    sample = counts[::every].astype(np.float64)  # integers below 2**53: products are exact in any order
    classes = _start(sample, clusters)
    for last in (False,) * 5 + (True,):  # the cost falls by less than 0.01 % after that
        costs = smooth_costs(merged(sample, classes).astype(np.int64))
        shares = class_costs(np.bincount(classes))[: len(costs)]
        classes = ((counts.astype(np.float64) if last else sample) @ costs.T.astype(np.float64) + shares).argmin(1)
    return classes


def _start(counts: np.ndarray, clusters: int) -> np.ndarray:
    """Starting clusters: rows that use the same set of symbols if few sets are common, else rows of equal cost."""
    masks = np.packbits(counts > 0, axis=1)
    supports, support = np.unique(masks.view(f"V{masks.shape[1]}").ravel(), return_inverse=True)
    sizes = np.bincount(support, minlength=len(supports))
    common = np.argsort(-sizes, kind="stable")[: clusters - 1]
    if 2 * sizes[common].sum() > len(counts):
        place = np.full(len(supports), len(common))
        place[common] = np.arange(len(common))
        return place[support]
    costs = smooth_costs(counts.sum(0, keepdims=True).astype(np.int64))[0]
    order = np.argsort((counts @ costs) // np.maximum(counts.sum(1), 1), kind="stable")
    classes = np.empty(len(counts), np.int64)
    classes[order] = np.arange(len(counts)) * clusters // max(len(counts), 1)
    return classes
