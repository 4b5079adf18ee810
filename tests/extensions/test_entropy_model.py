"""An entropy model from outside the package: registered, tried, kept where it is cheaper; nothing else changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from codec import QuantizedTensor, encode, ledger, unpack
from codec.entropy.level_tables import Fitted, MatrixGroup, fit_contexts
from codec.entropy.models import ENTROPY_MODELS, Scope, register
from codec.entropy.row_classes import Contexts, merged, one_table, row_histograms
from codec.errors import UsageError
from tests.codec.reader import read

WIDTH = 16  # columns of a square; the toolkit's own segments have 64 or 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkerboard:
    """Segments of 16 columns, black and white in turn along rows and columns: a class for each colour."""

    name: str = "checkerboard"
    rank: int = 100
    scope: Scope = "group"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        matrices = zip(group.symbols, group.row_counts, strict=True)
        yield fit_contexts(group, [self._choices(symbols, counts, group.width) for symbols, counts in matrices])

    def _choices(self, symbols: np.ndarray, counts: np.ndarray, width: int) -> list[Contexts]:
        rows, columns = symbols.shape
        plain = one_table(counts, columns)
        if not columns or columns % WIDTH:
            return [plain]
        colours = np.add.outer(np.arange(rows), np.arange(columns // WIDTH)).ravel() % 2
        squares = row_histograms(symbols.reshape(-1, WIDTH), width)
        no_columns = np.zeros(columns, np.int64)
        return [plain, Contexts(base=0, rows=colours, columns=no_columns, counts=merged(squares, colours))]


@contextmanager
def registered(model: Checkerboard) -> Iterator[None]:
    register(model)
    try:
        yield
    finally:
        del ENTROPY_MODELS[model.name]


def board() -> dict[str, QuantizedTensor | np.ndarray]:
    """A matrix whose squares are wide and narrow in turn, beside ordinary ones."""
    random = np.random.default_rng(0)
    colours = np.add.outer(np.arange(200), np.arange(384) // WIDTH) % 2
    levels = random.normal(size=(200, 384)) * np.where(colours, 12, 1.5)
    tensors = {"board": levels, "plain": random.normal(0, 5, (50, 60)), "odd": random.normal(0, 9, (7, 5))}
    return {
        **{
            name: QuantizedTensor(each.round().clip(-31, 31).astype(np.int8), random.random(len(each)).astype("f2"))
            for name, each in tensors.items()
        },
        "norm": random.random(30).astype(np.float16),
    }


def same(one, other) -> bool:
    if isinstance(one, QuantizedTensor):
        return all(map(same, one, other))
    return one is other if one is None else one.dtype == other.dtype and np.array_equal(one, other)


def test_it_is_picked_where_it_is_cheaper_and_the_ordinary_decoder_reads_it():
    tensors = board()
    without = encode(tensors, {})
    with registered(Checkerboard()):
        blob = encode(tensors, {})
    assert len(blob) < 0.95 * len(without)
    assert encode(tensors, {}) == without
    header, back = unpack(blob)
    forms = {name: header["forms"][form] for (_, _, form), name in zip(header["names"], back, strict=True)}
    assert forms["board"][-1] == 384 // WIDTH  # segments so short that no model of the toolkit makes them
    assert all(same(tensor, back[name]) for name, tensor in tensors.items())
    assert read(blob)[1]["board"][3] == tensors["board"].levels.ravel().tolist()


def test_the_ledger_adds_up():
    with registered(Checkerboard()):
        account = ledger(encode(board(), {}))
    total = sum(row.bytes for row in account.rows) + account.header_bytes + account.table_bytes + account.lane_bytes
    assert total == pytest.approx(account.artifact_bytes)
    squares = 200 * 384 // WIDTH
    assert {row.name: row.class_bytes for row in account.rows}["board"] == pytest.approx(squares / 8, rel=0.05)


def test_it_changes_nothing_where_it_is_dearer():
    tensors = {name: each for name, each in board().items() if name != "board"}
    without = encode(tensors, {})
    with registered(Checkerboard()):
        assert encode(tensors, {}) == without


def test_a_name_is_taken_once():
    with registered(Checkerboard()), pytest.raises(UsageError, match="checkerboard"):
        register(Checkerboard())
