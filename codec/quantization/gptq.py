"""GPTQ: rounding that pushes each column's error into the columns still to come, along the layer's Hessian."""

from dataclasses import dataclass

import numpy as np

from codec.errors import InputError
from codec.quantization.array_ops import NUMPY, nearest
from codec.quantization.granularity import COLUMN_SCALES, Grid

DAMPING = 0.01  # of the Hessian's mean diagonal; 0.1 and 0.001 are 0.2 and 0.03 dB worse
BLOCK = 128  # columns whose errors are propagated one by one; later blocks get them in one product


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """Of a damped Hessian, columns by descending diagonal.

    order: int (columns,).  upper: float32 (columns, columns), the upper Cholesky factor of the inverse in that order.
    dead: bool (columns,) in the weights' own order: columns that no input reaches.
    """

    order: np.ndarray
    upper: np.ndarray
    dead: np.ndarray


def factorize(hessian: np.ndarray, columns: int) -> Factor:
    """hessian: float (columns, columns), the second moment of the layer's inputs.

    Raises: InputError for another shape, for what is not finite or not positive definite.
    """
    if hessian.shape != (columns, columns):
        raise InputError(
            f"has {columns} columns, its Hessian is {hessian.shape}",
            hint="calibrate with the checkpoint that is packed",
        )
    if not np.isfinite(hessian).all():
        raise InputError("its Hessian is not finite", hint="calibrate again")
    second_moment = hessian.astype(np.float32)
    diagonal = np.einsum("ii->i", second_moment)  # a view: writing to it writes to the matrix
    dead = diagonal == 0
    diagonal[dead] = 1
    diagonal += np.float32(DAMPING) * diagonal.mean()
    order = np.argsort(-diagonal, kind="stable")
    try:
        inverse = np.linalg.inv(second_moment[np.ix_(order, order)].astype(np.float64))
        upper = np.linalg.cholesky(inverse).T.astype(np.float32)
    except np.linalg.LinAlgError:
        raise InputError("its Hessian is not positive definite", hint="calibrate on more tokens") from None
    return Factor(order=order, upper=upper, dead=dead)


def propagate(rows: np.ndarray, factor: Factor, grid: Grid, low: int, top: int) -> np.ndarray:
    """float32 (rows, columns) -> levels int8, quantized column by column.

    The error of column j goes to the later ones along row j of the factor.  It is measured in units of the weights;
    the rounding itself is done in units of the column.  A column that no input reaches has weight 0.

    Source: GPTQ (Frantar et al. 2022), in the form of pull requests 1176 and 1716.
    """
    order, upper, columns = factor.order, factor.upper, rows.shape[1]
    left = np.where(factor.dead, np.float32(0), rows)[:, order]
    units = np.ones(columns, np.float32)
    if grid.column_steps is not None:
        units = NUMPY.lookup(COLUMN_SCALES, grid.column_steps)
    levels = np.zeros(left.shape, np.int8)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.zeros((len(rows), stop - start), np.float32)
        for column in range(start, stop):
            unit, now = units[order[column]], left[:, column]
            rounded = nearest(now[:, None] / unit, grid.scales, low, top, NUMPY)
            levels[:, order[column]] = rounded[:, 0]
            error = (now - (rounded * unit * grid.scales)[:, 0]) / upper[column, column]
            left[:, column:stop] -= np.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return levels
