"""Rows predicted from earlier rows of their matrix.

Embeddings of related tokens point the same way, and those of tokens that training never met are almost equal.  A row
that is well described by a multiple of an earlier row is coded as the difference: 4 to 13 % of the bytes of real
embeddings.
Rows of attention and MLP matrices are independent, which a sample shows before any time is spent on them.
"""

from dataclasses import dataclass

import numpy as np

EIGHTHS_BELOW, EIGHTHS_ABOVE = 8, 15  # multiples from -8/8 to 15/8; stored as 1 + 8 + eighths, 0 = not predicted
BLOCK = 512  # rows searched at a time: 32 MiB of products for a vocabulary of 8,192
SAMPLE = 64  # rows looked at first
ROW_BITS = 20  # what a prediction costs: reference, multiple, and a little for doubt


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """multiples: uint8 (rows,), as stored.  references: int64 (rows,), an earlier row each, 0 where not predicted."""

    multiples: np.ndarray
    references: np.ndarray


def find_predictions(levels: np.ndarray) -> Predictions | None:
    """levels: int8 (rows, columns) -> for each row the earlier row that describes it best, where that pays."""
    row_count, column_count = levels.shape
    if row_count < 2 or column_count < 16 or row_count > 1 << 16:
        return None
    exact = levels.astype(np.float64)  # products and sums of levels are integers below 2**53: exact in any order
    sampled = np.linspace(1, row_count - 1, min(SAMPLE, row_count - 1)).astype(np.int64)
    if 8 * np.count_nonzero(_search(exact, sampled)[0]) < len(sampled):
        return None
    multiples, references = np.zeros(row_count, np.uint8), np.zeros(row_count, np.int64)
    for start in range(0, row_count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, row_count))
        multiples[rows], references[rows] = _search(exact, rows)
    return Predictions(multiples=multiples, references=references)


def differences(levels: np.ndarray, predictions: Predictions) -> np.ndarray:
    """int8, same shape: predicted rows less what their reference says, modulo 256."""
    eighths = predictions.multiples.astype(np.int16) - (1 + EIGHTHS_BELOW)
    said = (2 * eighths[:, None] * levels[predictions.references] + 8) // 16
    changed = (levels - said + 128) % 256 - 128
    found: np.ndarray = np.where(predictions.multiples[:, None] > 0, changed, levels).astype(np.int8)
    return found


def prediction_planes(predictions: Predictions) -> dict[str, np.ndarray]:
    """uint8, by their names on the wire: multiples of all rows, two bytes of the references of the predicted ones."""
    references = predictions.references[predictions.multiples > 0]
    return {
        "multiples": predictions.multiples,
        "low_references": (references & 255).astype(np.uint8),
        "high_references": (references >> 8).astype(np.uint8),
    }


def _search(exact: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(multiples uint8, references) of `rows`; multiple 0 where predicting would not pay."""
    energies = np.square(exact).sum(1)
    products = exact[rows] @ exact[: rows.max() + 1].T
    products[np.arange(products.shape[1]) >= rows[:, None]] = 0  # only earlier rows are known to the decoder
    references = (np.square(products) / np.maximum(energies[: products.shape[1]], 1)).argmax(1)
    inner = products[np.arange(len(rows)), references]
    eighths = np.rint(8 * inner / np.maximum(energies[references], 1)).clip(-EIGHTHS_BELOW, EIGHTHS_ABOVE)
    left = np.square(exact[rows] - np.floor(eighths[:, None] * exact[references] / 8 + 0.5)).sum(1)
    # Halving the energy of a row saves half a bit per level; in integers, so that no platform decides otherwise.
    worth = 64 * energies[rows] > (int(64 * 2 ** (2 * ROW_BITS / exact.shape[1])) + 1) * left
    used = worth & (eighths != 0)
    return np.where(used, eighths + 1 + EIGHTHS_BELOW, 0).astype(np.uint8), np.where(used, references, 0)
