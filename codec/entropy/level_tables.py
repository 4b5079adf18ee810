"""What a group of matrices costs under the frequency tables they share, and which contexts are cheapest.

Levels that are spread differently should not share a table: on absmax int6 that is worth 1 to 3 % of the bytes.
Table number = first table of the matrix + class of the row segment + class of the column, so the decoder needs two
additions.  What the classes mean is up to the encoder (codec.entropy.models).

The tables are histograms: the best generalized normal of each row's spread costs 0.03 to 1.3 % more on real weights,
half as much again on those that were quantized before (benchmarks/bench_families.py).
Decisions are made on integers only, so that the bytes are the same on every platform.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from codec.entropy.code_length import COST_UNIT, class_costs, smooth_costs, table_cost
from codec.entropy.rans import table_logs
from codec.entropy.row_classes import Contexts, blocks, folded, histograms, row_histograms, symbols_of
from codec.entropy.row_prediction import Predictions, prediction_planes


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """levels: int8 (rows, columns), as they are coded: predicted rows as differences, of a trellis halves.

    Of a trellis, odd: uint8 (rows, columns), whether a level's state is odd, which is a context of its own.
    far: int64, in the order of levels, what goes beyond symbol 255 wherever it stands; None for nothing at all.
    """

    levels: np.ndarray
    predictions: Predictions | None = None
    odd: np.ndarray | None = None
    far: np.ndarray | None = None

    def symbols(self, lowest: int) -> np.ndarray:
        """uint8 (rows, columns)."""
        return symbols_of(self.levels, lowest) if self.odd is None else folded(self.levels)


@dataclass(frozen=True, kw_only=True)
class MatrixGroup:
    """Matrices that share tables, and what every model asks of them, counted once."""

    matrices: Sequence[Matrix]

    @cached_property
    def lowest(self) -> int:
        """The level that is symbol 0; 0 for halves of a trellis, which are folded instead."""
        if any(each.odd is not None for each in self.matrices):
            return 0
        return min((int(each.levels.min(initial=0)) for each in self.matrices), default=0)

    @cached_property
    def symbols(self) -> list[np.ndarray]:
        """uint8 (rows, columns) of each matrix."""
        return [each.symbols(self.lowest) for each in self.matrices]

    @cached_property
    def width(self) -> int:
        """How many symbols there are."""
        return max((int(each.max(initial=0)) for each in self.symbols), default=0) + 1

    @cached_property
    def columns(self) -> list[int]:
        """Of each matrix."""
        return [each.levels.shape[1] for each in self.matrices]

    @cached_property
    def row_counts(self) -> list[np.ndarray]:
        """(rows, width) of each matrix: how often each symbol occurs in each row."""
        return [row_histograms(each, self.width) for each in self.symbols]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A group as an entropy model codes it.

    contexts: of each matrix, bases counted from the group's first table.  counts: int64 (tables, 256), how often each
    symbol falls into each.  cost: of levels, tables and side information, in 1/1024 bits.  lowest: as MatrixGroup.
    odd_tables: how many tables further on levels of an odd state have theirs; 0 where no matrix is of a trellis.
    """

    matrices: Sequence[Matrix]
    lowest: int
    contexts: Sequence[Contexts]
    counts: np.ndarray
    cost: int
    odd_tables: int = 0

    def segments(self, place: int) -> int:
        """Into how many the rows of a matrix are cut, each with a class."""
        rows = self.contexts[place].rows
        return len(rows) // len(self.matrices[place].levels) if rows.any() else 1

    def side_information(self, place: int) -> dict[str, np.ndarray]:
        """Planes of a matrix that precede its levels, by their names on the wire: uint8.  Classes only if not all 0."""
        contexts, predictions = self.contexts[place], self.matrices[place].predictions
        classes = {"row_classes": contexts.rows, "column_classes": contexts.columns}
        planes = {name: each.astype(np.uint8) for name, each in classes.items() if each.any()}
        far = self.matrices[place].far
        if far is not None:
            planes |= {"low_far": (far & 255).astype(np.uint8), "high_far": (far >> 8).astype(np.uint8)}
        return planes | prediction_planes(predictions) if predictions else planes

    def code(self, place: int) -> np.ndarray:
        """The levels of a matrix as symbols: uint8 (rows, columns)."""
        return self.matrices[place].symbols(self.lowest)

    def side_counts(self, name: str) -> np.ndarray:
        """int64 (256,): how often each symbol occurs in the planes of this name."""
        planes = [self.side_information(place) for place in range(len(self.matrices))]
        found = [np.bincount(each[name], minlength=256) for each in planes if name in each]
        return sum(found, np.zeros(256, np.int64))


def fit_contexts(group: MatrixGroup, choices: Sequence[Sequence[Contexts]]) -> Fitted:
    """choices: of each matrix.  -> the cheapest of each, given what the others take."""
    picked = [own[-1] for own in choices]
    lowest, size = _range(choices)
    for _ in range(3):  # the choice changes the tables and the tables the choice; it settles in two rounds
        costs = smooth_costs(_totals(picked, lowest, size))
        rows, columns = (class_costs(_class_counts(picked, axis)) for axis in ("rows", "columns"))
        previous, picked = (
            picked,
            [
                min(
                    own,
                    key=lambda each: (
                        _level_cost(each, costs[each.base - lowest :])
                        + _class_cost(each.rows, rows)
                        + _class_cost(each.columns, columns)
                    ),
                )
                for own in choices
            ],
        )
        if all(now is before for now, before in zip(picked, previous, strict=True)):
            break
    lowest, size = _range([[each] for each in picked])
    totals = _totals(picked, lowest, size)
    classes = [_class_counts(picked, axis) for axis in ("rows", "columns")]
    return Fitted(
        matrices=group.matrices,
        lowest=group.lowest,
        contexts=[dataclasses.replace(each, base=each.base - lowest) for each in picked],
        counts=totals,
        cost=sum(table_cost(counts) for counts in (*totals, *classes) if counts.any()) + _second_tables(group, totals),
    )


def _second_tables(group: MatrixGroup, totals: np.ndarray) -> int:
    """What storing a second table for each costs, where states need one."""
    if all(each.odd is None for each in group.matrices):
        return 0
    return sum((1 + len(table_logs(counts))) * 8 * COST_UNIT for counts in totals)


def split_by_state(fitted: Fitted) -> Fitted:
    """The same classes, with tables for levels of even states, and as many for those of odd ones."""
    tables = len(fitted.counts)
    counts = np.zeros((2 * tables, 256), np.int64)
    for place, (matrix, contexts) in enumerate(zip(fitted.matrices, fitted.contexts, strict=True)):
        rows, columns = matrix.levels.shape
        segments = max(len(contexts.rows) // max(rows, 1), 1)  # more than are stored where all are of class 0
        classes = contexts.rows.reshape(rows, segments).repeat(columns // segments, 1) + contexts.columns
        symbols = fitted.code(place)
        for block in blocks(rows, columns):
            odd = np.zeros(1, np.int64) if matrix.odd is None else matrix.odd[block].astype(np.int64)
            found = histograms(symbols[block], contexts.base + classes[block] + odd * tables, 256)
            counts[: len(found)] += found
    return dataclasses.replace(fitted, counts=counts, odd_tables=tables)


def _level_cost(contexts: Contexts, costs: np.ndarray) -> int:
    """Of the levels under the tables from the first of these contexts on, in 1/1024 bits."""
    tables, width = contexts.counts.shape
    return int((contexts.counts * costs[:tables, :width]).sum())


def _class_cost(classes: np.ndarray, costs: np.ndarray) -> int:
    return int(costs[classes].sum()) if classes.any() else 0


def _range(choices: Iterable[Sequence[Contexts]]) -> tuple[int, int]:
    """(lowest table number, how many up to the highest)."""
    every = [each for own in choices for each in own]
    lowest = min((each.base for each in every), default=0)
    return lowest, max((each.base + len(each.counts) for each in every), default=1) - lowest


def _totals(picked: Iterable[Contexts], lowest: int, size: int) -> np.ndarray:
    totals = np.zeros((size, 256), np.int64)
    for each in picked:
        totals[each.base - lowest :, : each.counts.shape[1]][: len(each.counts)] += each.counts
    return totals


def _class_counts(picked: Iterable[Contexts], axis: str) -> np.ndarray:
    """int64 (256,): how often each class occurs in the planes that are stored."""
    counts = np.zeros(256, np.int64)
    for each in picked:
        classes: np.ndarray = getattr(each, axis)
        if classes.any():
            counts += np.bincount(classes, minlength=256)
    return counts


def level_bits(levels: np.ndarray) -> int:
    """Bits of the smallest signed integer that holds every level: 6 for -32 to 31, 1 where all are 0."""
    return max(int(levels.max(initial=0)), -1 - int(levels.min(initial=0))).bit_length() + 1
