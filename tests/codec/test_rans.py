"""The coder against its own ideal code length and against constriction's."""

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.decoder import EIGHTHS, PRECISION, Stream, frequencies
from codec.entropy.code_length import COST_UNIT, COSTS, table_cost
from codec.entropy.level_tables import Fitted, Matrix
from codec.entropy.models import fit_group
from codec.entropy.rans import lane_count, rans_encode, table_logs
from tests.strategies import lattices


def group(levels: np.ndarray) -> tuple[Fitted, dict[str, np.ndarray]]:
    """One matrix alone: what it costs, and its side information."""
    fitted = fit_group([Matrix(levels=levels)], 100)
    return fitted, fitted.side_information(0)


def coded_bits(symbols: np.ndarray, table: np.ndarray, lanes: int) -> int:
    tables = np.zeros(len(symbols), np.int64)
    states, words = rans_encode([(symbols, tables)], table[None], lanes)
    stream = Stream(table[None], states.astype(np.int64), words)
    assert (stream.take(tables) == symbols).all()
    stream.finish()
    return 32 * lanes + 16 * len(words)


def test_eighths_are_powers_of_two_to_the_eighths():
    assert [round(2 ** (16 + i / 8)) for i in range(8)] == EIGHTHS


def test_integer_costs_do_not_depend_on_the_last_bit_of_a_logarithm():
    exact = (PRECISION - np.log2(np.arange(1, (1 << PRECISION) + 1))) * COST_UNIT
    distance = np.abs(exact - np.floor(exact) - 0.5)
    assert distance.min() > 1e-6  # a float64 log2 is off by less than 1e-11 here
    assert COSTS[0] == PRECISION * COST_UNIT
    assert COSTS[-1] == 0


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=256).filter(any))
def test_tables_sum_to_one_and_keep_every_present_symbol(counts):
    table = frequencies(table_logs(np.array(counts)))
    assert table.sum() == 1 << PRECISION
    assert ((table[: len(counts)] > 0) == (np.array(counts) > 0)).all()


@given(st.integers(1, 300), st.sampled_from([1, 2, 8, 64]), st.integers(0, 2**32))
def test_any_length_and_lane_count_round_trips(count, lanes, seed):
    random = np.random.default_rng(seed)
    symbols = (random.normal(0, 3, count).round() + 100).clip(0, 255).astype(np.uint8)
    coded_bits(symbols, frequencies(table_logs(np.bincount(symbols))), lanes)


def test_bytes_are_within_a_tenth_of_a_percent_of_the_entropy_and_of_constriction():
    random = np.random.default_rng(1)
    symbols = (random.normal(0, 1 / 0.4145, 400_000).round().clip(-31, 31) + 31).astype(np.uint8)
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * np.log2(shares)).sum() * len(symbols)
    bits = coded_bits(symbols, frequencies(table_logs(counts)), lane_count(len(symbols)))
    assert entropy < bits < 1.001 * entropy
    coder = constriction.stream.stack.AnsCoder()
    model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)
    coder.encode_reverse(symbols.astype(np.int32), model)
    assert bits < 1.001 * 32 * len(coder.get_compressed())


@given(st.integers(0, 2**32), st.integers(2, 200), st.floats(0.1, 30), st.integers(1, 20_000))
def test_the_stream_is_as_long_as_constrictions_under_the_same_table(seed, most, spread, count):
    """Both are ANS under frequencies of 2**-14, which a float holds exactly: they differ by their states alone."""
    random = np.random.default_rng(seed)
    drawn = (random.normal(0, spread, count).round().clip(-most / 2, most / 2) + 100).astype(np.uint8)
    symbols = np.unique(drawn, return_inverse=True)[1].astype(np.uint8)  # every symbol of the table occurs
    if symbols.max() == 0:
        return
    table = frequencies(table_logs(np.bincount(symbols)))[: symbols.max() + 1]
    bits = coded_bits(symbols, frequencies(table_logs(np.bincount(symbols))), 1)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(
        symbols.astype(np.int32), constriction.stream.model.Categorical(table / table.sum(), perfect=False)
    )
    assert abs(bits - coder.num_bits()) <= 64 + 1e-4 * bits


def test_rows_of_different_spread_get_different_tables():
    random = np.random.default_rng(2)
    spreads = np.where(np.arange(256) % 2, 1.0, 9.0)
    levels = (random.normal(size=(256, 512)) * spreads[:, None]).round().clip(-31, 31).astype(np.int8)
    found, side = group(levels)
    one_table = table_cost(np.bincount(levels.ravel().astype(int) + 31)) / COST_UNIT
    assert "row_classes" in side
    cost = sum(table_cost(counts) for counts in [*found.counts, found.side_counts("row_classes")])
    assert cost < 0.92 * one_table * COST_UNIT


def test_columns_of_different_spread_get_different_tables():
    random = np.random.default_rng(3)
    spreads = np.where(np.arange(512) % 2, 1.0, 9.0)
    levels = (random.normal(size=(256, 512)) * spreads).round().clip(-31, 31).astype(np.int8)
    assert "column_classes" in group(levels)[1]


def test_equal_rows_share_one_table():
    levels = np.random.default_rng(4).normal(0, 5, (64, 64)).round().astype(np.int8)
    assert "row_classes" not in group(levels)[1]


@pytest.mark.parametrize("segment", [64, 128])
def test_segments_with_lattices_of_their_own_get_different_tables(segment):
    levels = lattices(np.random.default_rng(5), 256, 512, segment)
    found, side = group(levels)
    assert len(side["row_classes"]) == 256 * 512 // segment
    assert found.segments(0) == 512 // segment
    cost = sum(table_cost(counts) for counts in [*found.counts, found.side_counts("row_classes")])
    assert cost < 0.8 * table_cost(np.bincount(levels.ravel().astype(int) + 31))


def test_rows_of_one_histogram_are_not_cut_into_segments():
    levels = np.random.default_rng(6).normal(0, 5, (256, 512)).round().clip(-31, 31).astype(np.int8)
    assert "row_classes" not in group(levels)[1]


def test_tables_of_counts_near_the_limit_of_int64_are_those_of_small_ones():
    """2**40 of one symbol: the most weights an artifact holds, times the 4,096 that keep unseen symbols finite."""
    counts = np.array([1, 0, 3, 1000, 1 << 20, (1 << 28) - 1], np.int64)
    assert np.array_equal(table_logs(counts << 12), table_logs(counts))
