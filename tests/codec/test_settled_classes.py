"""Classes that moved to where their levels are cheapest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.entropy.level_tables import Matrix, MatrixGroup, fit_contexts
from codec.entropy.row_classes import Contexts, histograms, row_histograms, spread_contexts
from codec.entropy.settled_classes import _moved, settled


def spread(levels: list[np.ndarray], steps: int = 2) -> tuple[MatrixGroup, list[Contexts]]:
    """A group, and classes by the spread of its rows and columns."""
    group = MatrixGroup(matrices=[Matrix(levels=each) for each in levels])
    pairs = zip(levels, group.symbols, strict=True)
    return group, [
        spread_contexts(each, symbols, row_histograms(symbols, group.width), steps)[-1] for each, symbols in pairs
    ]


def cost(group: MatrixGroup, contexts: list[Contexts]) -> int:
    return fit_contexts(group, [[each] for each in contexts]).cost


def rough(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows and columns of very different spread."""
    spreads = np.exp(random.normal(0, 0.7, (rows, 1)) + random.normal(0, 0.7, columns))
    return (random.normal(size=(rows, columns)) * spreads * 3).round().clip(-100, 100).astype(np.int8)


def test_they_cost_less_than_classes_by_spread_alone():
    random = np.random.default_rng(1)
    group, first = spread([rough(random, 200, 300), rough(random, 150, 400)])
    moved = settled(first, group.symbols, group.width)
    assert cost(group, moved) < 0.995 * cost(group, first)
    assert any((before.rows != after.rows).any() for before, after in zip(first, moved, strict=True))
    assert any((before.columns != after.columns).any() for before, after in zip(first, moved, strict=True))


@given(st.integers(0, 1 << 20), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_every_level_keeps_a_table_and_is_counted_once(seed, rows, columns, steps):
    random = np.random.default_rng(seed)
    group, first = spread([rough(random, rows, columns), rough(random, columns, 7)], steps)
    tables = max(each.base + len(each.counts) for each in first)
    for each, symbols in zip(settled(first, group.symbols, group.width), group.symbols, strict=True):
        assert each.rows.min() >= 0
        assert each.columns.min() >= 0
        assert each.base + each.rows.max() + each.columns.max() < tables
        again = histograms(symbols, each.rows[:, None] + each.columns, group.width)
        assert np.array_equal(each.counts, again)


def test_of_no_levels_nothing_moves():
    group, first = spread([np.zeros((0, 5), np.int8), np.zeros((3, 0), np.int8), np.zeros((2, 2), np.int8)])
    moved = settled(first, group.symbols, group.width)
    assert [each.rows.tolist() for each in moved] == [[], [0, 0, 0], [0, 0]]


@pytest.mark.parametrize("seed", range(20))
def test_rows_then_columns_take_the_cheapest_of_their_class_and_its_neighbours(seed):
    """Against every level's cost added up by itself."""
    random = np.random.default_rng(seed)
    tables, width, base = 9, 5, 2
    costs = random.integers(0, 4000, (tables, width)).astype(np.int32)
    row_prices, prices = random.integers(0, 20_000, (2, 256))
    symbols = random.integers(0, width, (12, 10)).astype(np.uint8)
    rows, columns = random.integers(0, 4, 12), random.integers(0, 3, 10)
    before = Contexts(base=base, rows=rows, columns=columns, counts=np.zeros((1, width), np.int64))

    def cheapest(own, others, lines, price):
        found = []
        for now, line in zip(own, lines, strict=True):
            costs_of = {}
            for wanted in (now, now - 1, now + 1):
                places = [base + wanted + other for other in others]
                if wanted >= 0 and base + wanted + max(others) < tables:
                    levels = zip(places, line, strict=True)
                    costs_of[wanted] = price[wanted] + sum(int(costs[at, level]) for at, level in levels)
            found.append(min(costs_of, key=costs_of.get))
        return found

    after = _moved(before, symbols, costs, base, row_prices, prices)
    wanted = cheapest(rows, columns, symbols, row_prices)
    assert after.rows.tolist() == wanted != rows.tolist()  # some moved
    assert after.columns.tolist() == cheapest(columns, wanted, symbols.T, prices) != columns.tolist()
    assert after.base == base
