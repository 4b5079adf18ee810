"""GPTQ with a trellis: matrices of one shape quantized column by column, all at once.

The rows of a matrix do not depend on each other once a column's turn has come, so the trellis runs down the rows of
that one column, and the feedback of its error into later columns stays what it is in GPTQ.  Down the rows it starts
anew every `restart`: a long column is several sequences, and numpy works on all of them together, those of every matrix
of the shape.  That is what makes plain numpy enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codec.decoder import Trellis
from codec.progress import Progress, silent
from codec.quantization.gptq import Factor
from codec.quantization.rate_distortion.rates import CLASSES, SPAN, SPREADS, level_costs, spread_classes
from codec.quantization.rate_distortion.trellis import best_levels

FARTHEST = 1 << 16  # levels, the largest that an artifact holds


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrices:
    """Matrices of one shape, and their steps.

    weights: float32 (matrices, rows, columns).  factors: of their moments.  row_steps: float32 (matrices, rows).
    column_steps: float32 (matrices, columns).
    """

    weights: np.ndarray
    factors: Sequence[Factor]
    row_steps: np.ndarray
    column_steps: np.ndarray


def quantize(
    batch: Matrices, trellis: Trellis, rate_weight: float, propagate: bool = True, progress: Progress = silent
) -> np.ndarray:
    """int32 (matrices, rows, columns): the levels.

    rate_weight: what a bit costs, in squared steps; 0 looks at the error alone.
    propagate: False leaves an error where it is made.  progress: told the columns done.
    """
    order = np.stack([factor.order for factor in batch.factors])
    dead = np.stack([factor.dead for factor in batch.factors])
    weights = np.where(dead[:, None], np.float32(0), batch.weights / batch.row_steps[:, :, None])
    sweep = _Sweep(
        left=np.ascontiguousarray(np.take_along_axis(weights, order[:, None], 2).transpose(0, 2, 1)),
        steps=np.take_along_axis(batch.column_steps, order, 1),
        upper=np.stack([factor.upper for factor in batch.factors]) if propagate else None,
        classes=spread_classes(weights / batch.column_steps[:, None]),
        trellis=trellis,
        rate_weight=rate_weight,
    )
    found = sweep.run(progress)
    levels = np.empty(weights.shape, np.int32)
    np.put_along_axis(levels, np.broadcast_to(order[:, None], weights.shape), found.transpose(0, 2, 1), 2)
    return levels


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sweep:
    """The work on a batch, columns in the order of the factors; all arrays (matrices, columns, ...).

    left: float32 (matrices, columns, rows), the weights in steps of their rows, less what earlier columns passed on.
    steps: float32 (matrices, columns).  upper: float32 (matrices, columns, columns), or None for no feedback.
    classes: int64 (matrices, rows), of the rows' spread.
    """

    left: np.ndarray
    steps: np.ndarray
    upper: np.ndarray | None
    classes: np.ndarray
    trellis: Trellis
    rate_weight: float

    def run(self, progress: Progress) -> np.ndarray:
        """int32 (matrices, columns, rows)."""
        levels = np.empty(self.left.shape, np.int32)
        errors = np.empty_like(self.left)
        self._columns(0, self.left.shape[1], levels, errors, progress)
        return levels

    def _columns(self, start: int, stop: int, levels: np.ndarray, errors: np.ndarray, progress: Progress) -> None:
        """Columns [start, stop), by halves: what the left half got wrong reaches the right half in one product."""
        if stop - start == 1:
            step, left = self.steps[:, start, None], self.left[:, start]
            levels[:, start] = self._column(left / step)
            if self.upper is not None:
                errors[:, start] = (left - levels[:, start] * step) / self.upper[:, start, start, None]
            progress(stop, "")
            return
        middle = (start + stop) // 2
        self._columns(start, middle, levels, errors, progress)
        if self.upper is not None:
            factor = self.upper[:, start:middle, middle:stop].transpose(0, 2, 1)
            self.left[:, middle:stop] -= np.matmul(factor, errors[:, start:middle])
        self._columns(middle, stop, levels, errors, progress)

    def _column(self, wanted: np.ndarray) -> np.ndarray:
        """wanted: float32 (matrices, rows), in steps -> levels, int32."""
        bits, place = self._bits(wanted)
        within = wanted.clip(4 - FARTHEST, FARTHEST - 8)
        best, costs = [], []
        for remainder in range(4):
            below = np.floor((within - remainder) / 4) * 4 + remainder
            pair = []
            for level in (below, below + 4):
                cost = np.square(wanted - level)
                if bits is not None:
                    cost += bits.take(place + np.minimum(np.abs(level), SPAN - 1).astype(np.int64))
                pair.append(cost)
            costs.append(np.minimum(*pair))
            best.append(np.where(pair[1] < pair[0], below + 4, below))
        taken = best_levels(self.trellis, self._sequences(np.stack(costs).astype(np.float32)))
        matrices, rows = wanted.shape
        remainders = taken.T.reshape(matrices, -1)[:, :rows].astype(np.int64)
        levels: np.ndarray = np.take_along_axis(np.stack(best), remainders[None], 0)[0]
        return levels.astype(np.int32)

    def _bits(self, wanted: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """(rate_weight times the bits of levels, by matrix and class of the row; where a row's begin), flat."""
        matrices = np.arange(len(wanted))[:, None]
        place = (matrices * CLASSES + self.classes) * SPAN
        if not self.rate_weight:
            return None, place
        spread = np.sqrt(np.square(wanted / SPREADS[self.classes]).mean(1))
        return np.float32(self.rate_weight) * level_costs(spread[:, None] * SPREADS).ravel(), place

    def _sequences(self, costs: np.ndarray) -> np.ndarray:
        """(4, matrices, rows) -> (length, 4, sequences): rows cut where the trellis begins anew, then zeros."""
        _, matrices, rows = costs.shape
        length = min(self.trellis.restart, rows)
        pieces = -(-rows // length)
        padded = np.pad(costs, ((0, 0), (0, 0), (0, pieces * length - rows)))
        return np.ascontiguousarray(padded.reshape(4, matrices * pieces, length).transpose(2, 0, 1))
