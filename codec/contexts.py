"""Which frequency table codes which level.

Levels that are spread differently should not share a table: on absmax int6 that is worth 1 to 3 % of the bytes.
Table number = first table of the tensor + class of the row + class of the column, so the decoder needs two
additions.  What the classes mean is up to the encoder, which tries two ways and keeps the cheaper:

- spread: a class is one step of log2(rms), for rows, columns or both;
- shape: rows are clustered by their histograms (for weights that were quantized before, or have odd tails).

The tables are histograms: no distribution family is assumed.  Decisions are made on integers only, so that the
bytes are the same on every platform.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from codec.decoder import PRECISION, frequencies
from codec.rans import table_logs

STEPS = (1, 2, 4)  # classes per octave of rms that are tried
CLUSTERS = (4, 12, 32)  # numbers of histogram clusters that are tried
MOST_TABLES = 36  # of a group: a dozen groups (bit widths, float types) stay below the format's 512
SAMPLED = 4096  # rows, about, on which clusters are found
COST_UNIT = 1024  # costs are integers in 1/1024 bit; no log2 of 1..2**14 lies near a rounding boundary there
COSTS = np.rint((PRECISION - np.log2(np.arange(1, (1 << PRECISION) + 1))) * COST_UNIT).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to code a tensor: first table, int64 class of each row and column, and what falls into each table.

    counts: int64 (tables, symbols), row t for table number base + t.
    """

    base: int
    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Contexts:
    """base: first table, relative to the group's; rows, columns: uint8 classes, or None when all are 0."""

    base: int
    rows: np.ndarray | None
    columns: np.ndarray | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """Contexts of each tensor of a group, and the counts (tables, 256) of its symbols in every table."""

    contexts: tuple[Contexts, ...]
    counts: np.ndarray
    row_counts: np.ndarray
    column_counts: np.ndarray

    @property
    def cost(self) -> int:
        """Of levels, tables and class planes, in 1/1024 bits."""
        planes = (counts for counts in (self.row_counts, self.column_counts) if counts.any())
        return sum(table_cost(counts) for counts in (*self.counts, *planes))


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
    width = max((int(tensor.max(initial=lowest_level)) for tensor in levels), default=0) - lowest_level + 1
    spreads: dict[int, list[list[Layout]]] = {step: [] for step in STEPS}
    row_counts = []
    for tensor in levels:
        symbols = tensor.astype(np.int16) - lowest_level
        row_counts.append(_counts_by(symbols, np.arange(len(tensor))[:, None], width))
        for step, layouts in spreads.items():
            layouts.append(_spread_layouts(tensor, symbols, row_counts[-1], step))
    single = [
        [
            Layout(
                base=0,
                rows=np.zeros(len(counts), np.int64),
                columns=np.zeros(tensor.shape[1], np.int64),
                counts=counts.sum(0, keepdims=True),
            )
        ]
        for counts, tensor in zip(row_counts, levels, strict=True)
    ]
    choices = [_choose(layouts) for layouts in (single, *spreads.values())]
    if any(len(counts) for counts in row_counts):
        choices += [_choose(_cluster_layouts(row_counts, levels, clusters)) for clusters in CLUSTERS]
    # The layout of one table for all is always among those that fit.
    fitting = [choice for choice in choices if _range([[each] for each in choice[1]])[1] <= MOST_TABLES]
    _, chosen = min(fitting, key=lambda choice: choice[0])
    return _grouping(chosen)


def _counts_by(symbols: np.ndarray, tables: np.ndarray, width: int) -> np.ndarray:
    """int64 (tables, width): how often each symbol falls into each table; tables broadcasts to symbols."""
    size = int(tables.max(initial=-1)) + 1
    return np.bincount((tables * width + symbols).ravel(), minlength=size * width).reshape(size, width)


def _spread_layouts(levels: np.ndarray, symbols: np.ndarray, row_counts: np.ndarray, step: int) -> list[Layout]:
    """Classes by spread: of the whole tensor, its rows, its columns, both."""
    row_count, column_count = levels.shape
    no_rows, no_columns = np.zeros(row_count, np.int64), np.zeros(column_count, np.int64)
    squares = levels.astype(np.int64) ** 2
    whole = int(_spread(squares.sum()[None], levels.size, step)[0])
    by_row = _spread(squares.sum(1), column_count, step)
    by_column = _spread(squares.sum(0), row_count, step)
    low_row, low_column = int(by_row.min(initial=99)), int(by_column.min(initial=99))
    by_row, by_column = by_row - low_row, by_column - low_column
    found = [Layout(base=whole, rows=no_rows, columns=no_columns, counts=row_counts.sum(0, keepdims=True))]
    if levels.size:
        found.append(Layout(base=low_row, rows=by_row, columns=no_columns, counts=_merged(row_counts, by_row)))
    if levels.size:
        found.append(
            Layout(
                base=low_column,
                rows=no_rows,
                columns=by_column,
                counts=_counts_by(symbols, by_column[None], row_counts.shape[1]),
            )
        )
        found.append(
            Layout(
                base=low_row + low_column - whole,
                rows=by_row,
                columns=by_column,
                counts=_counts_by(symbols, by_row[:, None] + by_column, row_counts.shape[1]),
            )
        )
    return found


def _spread(energies: np.ndarray, count: int, step: int) -> np.ndarray:
    """Class of the root of energies / count: floor(step * log2(64 rms)), at least 0, by integers."""
    thresholds = np.array([round(2.0 ** (2 * k / step)) for k in range(14 * step)])
    return np.searchsorted(thresholds, (energies.astype(np.int64) << 12) // max(count, 1), "right")


def _merged(row_counts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Sum the histograms of rows of one class -> (classes, symbols)."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    merged = np.zeros((int(classes.max(initial=-1)) + 1, row_counts.shape[1]), row_counts.dtype)
    if len(present):
        merged[present] = np.add.reduceat(row_counts[order], starts)
    return merged


def _cluster_layouts(
    row_counts: Sequence[np.ndarray], levels: Sequence[np.ndarray], clusters: int
) -> list[list[Layout]]:
    """Rows of all tensors clustered by their histograms; per tensor: its best single cluster, or one per row."""
    counts = np.concatenate(row_counts)
    classes = _clustered(counts, clusters)
    costs = _table_costs(_merged(counts, classes))
    layouts, start = [], 0
    for own, tensor in zip(row_counts, levels, strict=True):
        rows = classes[start : start + len(own)]
        start += len(own)
        columns = np.zeros(tensor.shape[1], np.int64)
        whole = own.sum(0, keepdims=True)
        single = Layout(
            base=int((whole @ costs.T).argmin()), rows=np.zeros(len(own), np.int64), columns=columns, counts=whole
        )
        low = int(rows.min(initial=len(costs)))
        layouts.append(
            [single, Layout(base=low, rows=rows - low, columns=columns, counts=_merged(own, rows - low))]
            if len(own)
            else [single]
        )
    return layouts


def _clustered(counts: np.ndarray, clusters: int) -> np.ndarray:
    """counts: int64 (rows, symbols) -> the class of each row, by Lloyd's iteration on code length."""
    every = len(counts) // SAMPLED + 1
    sample = counts[::every].astype(np.float64)  # integers below 2**53: products are exact in any order
    classes = _start(sample, clusters)
    for last in (False,) * 5 + (True,):  # the cost falls by less than 0.01 % after that
        costs = _table_costs(_merged(sample, classes).astype(np.int64))
        shares = _plane_costs(np.bincount(classes, minlength=256))[: len(costs)]
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
    costs = _table_costs(counts.sum(0, keepdims=True).astype(np.int64))[0]
    order = np.argsort((counts @ costs) // np.maximum(counts.sum(1), 1), kind="stable")
    classes = np.empty(len(counts), np.int64)
    classes[order] = np.arange(len(counts)) * clusters // max(len(counts), 1)
    return classes


def _table_costs(counts: np.ndarray) -> np.ndarray:
    """int64, same shape; one part in 4,096 of the common histogram keeps unseen symbols finite while choosing."""
    common = counts.sum(0) + 1
    return np.stack([symbol_costs(table_logs(4096 * row + common))[: counts.shape[1]] for row in counts])


def _choose(layouts: list[list[Layout]]) -> tuple[int, list[Layout]]:
    """(cost with tables and class planes in 1/1024 bits, the layout picked for each tensor)."""
    picked = [own[-1] for own in layouts]
    lowest, size = _range(layouts)
    for _ in range(3):  # the choice changes the tables and the tables the choice; it settles in two rounds
        costs = _table_costs(_totals(picked, lowest, size))
        rows, columns = (_plane_costs(_class_counts(picked, axis)) for axis in ("rows", "columns"))
        previous, picked = (
            picked,
            [
                min(
                    own,
                    key=lambda each: (
                        _cost(each, costs[each.base - lowest :])
                        + _plane_cost(each.rows, rows)
                        + _plane_cost(each.columns, columns)
                    ),
                )
                for own in layouts
            ],
        )
        if all(now is before for now, before in zip(picked, previous, strict=True)):
            break
    cost = sum(table_cost(counts) for counts in _totals(picked, *_range([[each] for each in picked])))
    planes = (_class_counts(picked, axis) for axis in ("rows", "columns"))
    return cost + sum(table_cost(counts) for counts in planes if counts.any()), picked


def _cost(layout: Layout, costs: np.ndarray) -> int:
    """Of the levels under the tables from the layout's first on, in 1/1024 bits."""
    tables, width = layout.counts.shape
    return int((layout.counts * costs[:tables, :width]).sum())


def _range(layouts: Iterable[list[Layout]]) -> tuple[int, int]:
    """(lowest table number, how many up to the highest)."""
    every = [each for own in layouts for each in own]
    lowest = min((each.base for each in every), default=0)
    return lowest, max((each.base + len(each.counts) for each in every), default=1) - lowest


def _totals(picked: Iterable[Layout], lowest: int, size: int) -> np.ndarray:
    totals = np.zeros((size, 256), np.int64)
    for each in picked:
        totals[each.base - lowest :, : each.counts.shape[1]][: len(each.counts)] += each.counts
    return totals


def _class_counts(picked: Iterable[Layout], axis: str) -> np.ndarray:
    """int64 (256,): how often each class occurs in the planes that are stored."""
    counts = np.zeros(256, np.int64)
    for each in picked:
        classes: np.ndarray = getattr(each, axis)
        if classes.any():
            counts += np.bincount(classes, minlength=256)
    return counts


def _plane_costs(counts: np.ndarray) -> np.ndarray:
    return symbol_costs(table_logs(counts * 256 + 1))


def _plane_cost(classes: np.ndarray, costs: np.ndarray) -> int:
    return int(costs[classes].sum()) if classes.any() else 0


def _grouping(picked: list[Layout]) -> Grouping:
    """Table numbers relative to the lowest that is used."""
    lowest, size = _range([[each] for each in picked])
    contexts = tuple(
        Contexts(
            base=each.base - lowest,
            rows=each.rows.astype(np.uint8) if each.rows.any() else None,
            columns=each.columns.astype(np.uint8) if each.columns.any() else None,
        )
        for each in picked
    )
    return Grouping(
        contexts=contexts,
        counts=_totals(picked, lowest, size),
        row_counts=_class_counts(picked, "rows"),
        column_counts=_class_counts(picked, "columns"),
    )
