"""Which frequency table codes which level.

Levels that are spread differently should not share a table: on absmax int6 that is worth 1 to 3 % of the bytes.
Table number = first table of the tensor + class of the row + class of the column, so the decoder needs two
additions.  What the classes mean is up to the encoder, which tries two ways and keeps the cheaper:

- spread: a class is one step of log2(rms), for rows, columns or both (codec.entropy.row_classes);
- shape: rows or their segments are clustered by their histograms (codec.entropy.histogram_clusters).

The tables are histograms: the best generalized normal of each row's spread costs 0.03 to 1.3 % more on real weights,
half as much again on those that were quantized before (benchmarks/bench_families.py).
Decisions are made on integers only, so that the bytes are the same on every platform.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from codec.entropy.code_length import class_costs, smooth_costs, table_cost
from codec.entropy.histogram_clusters import cluster_layouts, segment_histograms, worthy_segments
from codec.entropy.row_classes import Layout, one_table, row_histograms, spread_layouts, symbols_of

STEPS = (1, 2, 4)  # classes per octave of rms that are tried
CLUSTERS = (4, 12, 32, 96)  # numbers of histogram clusters that are tried, until more cost more


@dataclass(frozen=True, kw_only=True, slots=True)
class Contexts:
    """base: first table, relative to the group's; rows, columns: uint8 classes, or None when all are 0.

    rows: (rows * parts,) as in Layout.
    """

    base: int
    rows: np.ndarray | None
    columns: np.ndarray | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """Contexts of each tensor of a group, and the counts (tables, 256) of its symbols in every table.

    lowest: the level that is symbol 0.  row_counts, column_counts: int64 (256,), of the classes that are stored.
    """

    lowest: int
    contexts: tuple[Contexts, ...]
    counts: np.ndarray
    row_counts: np.ndarray
    column_counts: np.ndarray


def group(levels: Sequence[np.ndarray], most_tables: int) -> Grouping:
    """levels: int8 (rows, columns) of each tensor -> the cheapest grouping found with at most so many tables."""
    lowest = min((int(each.min(initial=0)) for each in levels), default=0)
    symbols = [symbols_of(each, lowest) for each in levels]
    # One table for all is always among those that fit.
    fitting = [choice for choice in _choices(levels, symbols) if choice.tables <= most_tables]
    return _grouping(lowest, min(fitting, key=lambda choice: choice.cost).layouts)


def cost(levels: np.ndarray) -> int:
    """levels: int8 (rows, columns) -> what they take by themselves, tables and classes included, in 1/1024 bits.

    Segments are not tried, which would take three times as long.
    """
    symbols = symbols_of(levels, int(levels.min(initial=0)))
    width = int(symbols.max(initial=0)) + 1
    return min(choice.cost for choice in _row_choices([levels], [symbols], width))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choice:
    """A layout for each tensor.  cost: levels, tables and class planes in 1/1024 bits.  tables: how many."""

    layouts: list[Layout]
    cost: int
    tables: int


def _choices(levels: Sequence[np.ndarray], symbols: Sequence[np.ndarray]) -> Iterator[_Choice]:
    width = max((int(each.max(initial=0)) for each in symbols), default=0) + 1
    yield from _row_choices(levels, symbols, width)
    columns = [tensor.shape[1] for tensor in levels]
    for segment in worthy_segments(symbols, width):
        yield from _cluster_choices(segment_histograms(symbols, segment, width), columns)


def _row_choices(levels: Sequence[np.ndarray], symbols: Sequence[np.ndarray], width: int) -> Iterator[_Choice]:
    columns = [tensor.shape[1] for tensor in levels]
    row_counts = [row_histograms(each, width) for each in symbols]
    yield _choose([[one_table(*each)] for each in zip(row_counts, columns, strict=True)])
    for step in STEPS:
        yield _choose([spread_layouts(*each, step) for each in zip(levels, symbols, row_counts, strict=True)])
    if any(len(each) for each in row_counts):
        yield from _cluster_choices(row_counts, columns)


def _cluster_choices(counts: Sequence[np.ndarray], columns: Sequence[int]) -> Iterator[_Choice]:
    least = None
    for clusters in CLUSTERS:
        choice = _choose(cluster_layouts(counts, columns, clusters))
        yield choice
        if least is not None and choice.cost >= least:
            return
        least = choice.cost


def _choose(layouts: list[list[Layout]]) -> _Choice:
    """The cheapest of each tensor's layouts, given what the others take."""
    picked = [own[-1] for own in layouts]
    lowest, size = _range(layouts)
    for _ in range(3):  # the choice changes the tables and the tables the choice; it settles in two rounds
        costs = smooth_costs(_totals(picked, lowest, size))
        rows, columns = (class_costs(_class_counts(picked, axis)) for axis in ("rows", "columns"))
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
    lowest, size = _range([[each] for each in picked])
    planes = (_class_counts(picked, axis) for axis in ("rows", "columns"))
    cost = sum(table_cost(counts) for counts in (*_totals(picked, lowest, size), *planes) if counts.any())
    return _Choice(layouts=picked, cost=cost, tables=size)


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


def _plane_cost(classes: np.ndarray, costs: np.ndarray) -> int:
    return int(costs[classes].sum()) if classes.any() else 0


def _grouping(lowest_level: int, picked: list[Layout]) -> Grouping:
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
        lowest=lowest_level,
        contexts=contexts,
        counts=_totals(picked, lowest, size),
        row_counts=_class_counts(picked, "rows"),
        column_counts=_class_counts(picked, "columns"),
    )
