"""How a tensor is cut up before it is coded: bytes under one table each, and a matrix under tables by row."""

from dataclasses import dataclass

import numpy as np

from codec.decoder import QuantizedTensor
from codec.entropy.code_length import table_cost
from codec.entropy.level_tables import cost
from codec.entropy.row_prediction import Predictions, differences, find_predictions
from codec.quantization.quantizers import level_bits

FEWEST_GROUPED = 2048  # floats, below which classes of rows cost more than they save


@dataclass(frozen=True, slots=True)
class Matrix:
    """levels: int8 (rows, columns), predicted rows as differences.  Matrices of one group share their tables."""

    levels: np.ndarray
    predictions: Predictions | None
    group: str


@dataclass(frozen=True, slots=True)
class Part:
    """kind, shape: of the form (docs/format.md).  planes: uint8 (bytes, count), under one table each."""

    kind: str
    shape: tuple[int, ...]
    planes: np.ndarray
    matrix: Matrix | None

    @property
    def symbols(self) -> int:
        return self.planes.size + (self.matrix.levels.size if self.matrix else 0)


def cut(tensor: QuantizedTensor | np.ndarray) -> Part:
    """Scales and plain arrays become byte planes; levels, and the top bytes of large float matrices, a matrix."""
    if isinstance(tensor, QuantizedTensor):
        rows = len(tensor.scales)
        levels = tensor.levels.reshape(rows, tensor.levels.size // max(rows, 1))
        kind = "row" if tensor.scales.dtype == np.float16 else "all"
        # Tensors of one bit width share their tables.
        matrix = _matrix(levels, f"{level_bits(levels)} bits")
        return Part(kind, tensor.levels.shape, _byte_planes(tensor.scales), matrix)
    kind, planes = tensor.dtype.newbyteorder("<").str, _byte_planes(tensor)
    if tensor.dtype.kind != "f" or tensor.ndim < 2 or tensor.size < FEWEST_GROUPED:
        return Part(kind, tensor.shape, planes, None)
    # The top byte of a float, sign and exponent, is as different from row to row as a level is.
    top = planes[-1].view(np.int8).reshape(len(tensor), -1)
    return Part(kind, tensor.shape, planes[:-1], _matrix(top, kind))


def prediction_planes(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8: multiples of all rows, low and high bytes of the references of the predicted ones."""
    references = predictions.references[predictions.multiples > 0]
    return predictions.multiples, (references & 255).astype(np.uint8), (references >> 8).astype(np.uint8)


def _matrix(levels: np.ndarray, group: str) -> Matrix:
    found = find_predictions(levels)
    if found:
        changed = differences(levels, found)
        # Less energy is not always fewer bits: weights that were quantized before use few of their levels.
        price = sum(table_cost(np.bincount(plane, minlength=256)) for plane in prediction_planes(found))
        if price + cost(changed) < cost(levels):
            return Matrix(changed, found, group)
    return Matrix(levels, None, group)


def _byte_planes(array: np.ndarray) -> np.ndarray:
    """uint8 (itemsize, count), lowest byte first."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).ravel()
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, array.dtype.itemsize).T)
