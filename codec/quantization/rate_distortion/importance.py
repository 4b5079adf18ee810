"""How much the loss grows by an error of a tensor, and the steps that spend every bit where it saves most.

To second order the loss of a token grows by 1/2 sum_r rows[r] E_r moments E_r^T, E the tensor's error (K-FAC; see
trainer/calibration.py).  GPTQ turns the error of weight (r, j) into white noise of variance step^2 / 12 in the basis of
U, the Cholesky factor of the inverse of the moments, where it costs rows[r] / U_jj^2.  One more bit saves the same loss
wherever it is spent when all these costs are equal: step = multiplier * U_jj / sqrt(rows[r]).  Along the columns that
is the rule of WaterSIC (arXiv 2603.04956).
"""

from dataclasses import dataclass

import numpy as np

from codec.decoder import octaves
from codec.quantization.gptq import Factor
from codec.quantization.rate_distortion.feedback import FARTHEST
from codec.storage.calibration_file import Layers

UNIT = 128  # the step that stands for 1, in eighths of an octave
REACH = FARTHEST - 2048  # levels; feedback may move a weight by some
TINY = 1e-60  # in place of 0: steps of 1e-30, which float32 holds


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """moments: float64 (columns, columns), mean diagonal 1; None for the identity.  rows: float64 (rows,), in nats."""

    moments: np.ndarray | None
    rows: np.ndarray

    @classmethod
    def calibrated(cls, terms: list[tuple[np.ndarray, np.ndarray]]) -> "Importance":
        """terms: of `Layers.terms`.  An embedding that is the output matrix too sums both, under common moments."""
        total = np.sum([max(rows.mean(), TINY) * moments for rows, moments in terms], 0)
        rows = np.sum([rows * _mean_diagonal(moments) for rows, moments in terms], 0)
        return cls(moments=total / (abs(_mean_diagonal(total)) or 1.0), rows=rows)

    @classmethod
    def by_spread(cls, weights: np.ndarray, every: int) -> "Importance":
        """What is assumed when nothing was calibrated: all rows of a model need the same signal over noise.

        weights: float (rows, columns).  every: weights of the whole model.
        """
        energy = np.square(weights, dtype=np.float64).mean(1)
        return cls(moments=None, rows=1 / (every * np.maximum(energy, energy.mean() * 1e-6 + TINY)))

    def tempered(self, weights: np.ndarray, multiplier: float, exponent: float, most_noise: float) -> "Importance":
        """Rows drawn to their mean, and none so unimportant that noise drowns it.

        Second order is blind where a row matters only once it has changed: a unit that never fired while calibrating,
        the logit of a rare token.  On the 7.6 M baseline at 1.2 bits per weight rows without the bound on noise have a
        KL of 26 nats, with it 0.0007 (benchmarks/README.md).
        exponent: 0 makes all rows alike, 1 believes all that was calibrated.  most_noise: over signal, about.
        """
        mean = max(self.rows.mean(), TINY)
        exact = weights.astype(np.float64)
        signal = np.einsum("ij,ij->i", exact if self.moments is None else exact @ self.moments, exact)
        noise = weights.shape[1] * multiplier**2 / 12
        bound = noise / (most_noise * np.maximum(signal, signal.mean() * 1e-6 + TINY))
        return Importance(moments=self.moments, rows=mean * (self.rows / mean) ** exponent + bound)

    def mean(self) -> float:
        """Of a weight."""
        return float(self.rows.mean() * (1.0 if self.moments is None else _mean_diagonal(self.moments)))


def importance(name: str, weights: np.ndarray, layers: Layers | None, every: int) -> Importance:
    """As it was calibrated, or by spread.  every: weights of the whole model."""
    terms = layers.terms(name) if layers else []
    return Importance.calibrated(terms) if terms else Importance.by_spread(weights, every)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """scale: float32, of both steps at UNIT.  row_steps, column_steps: uint8, as in `QuantizedTensor`."""

    scale: np.float32
    row_steps: np.ndarray
    column_steps: np.ndarray

    @classmethod
    def of(
        cls, known: Importance, columns: int, factor: Factor | None, multiplier: float, column_exponent: float
    ) -> "Steps":
        """The rule above, rounded to eighths of an octave, which costs 0.005 dB.

        factor: of the moments, None for the identity.  column_exponent: 1 is the rule, 0 makes all columns alike.
        """
        wide, alive = np.zeros(columns), np.ones(columns, bool)
        if factor:
            alive = ~factor.dead
            wide[factor.order] = np.log2(np.diag(factor.upper).astype(np.float64))
        middle = wide[alive].mean() if alive.any() else 0.0
        wide = np.where(alive, column_exponent * (wide - middle), 0.0)
        rows = -np.log2(known.rows) / 2
        scale = np.float32(multiplier * 2.0 ** (middle + rows.mean()))
        return cls(scale=scale, row_steps=_eighths(rows - rows.mean()), column_steps=_eighths(wide))

    def reaching(self, weights: np.ndarray) -> "Steps":
        """Rows with wider steps where a weight is beyond the farthest level: an outlier's own bits are lost first.

        weights: float (rows, columns).
        """
        sizes = (abs(weights) / octaves(self.column_steps)).max(1, initial=0) / (self.scale * octaves(self.row_steps))
        wider = np.ceil(8 * np.log2(np.maximum(sizes / REACH, 1)))
        common = wider.min()
        return Steps(
            scale=np.float32(self.scale * 2.0 ** (common / 8)),
            row_steps=(self.row_steps + wider - common).clip(0, 255).astype(np.uint8),
            column_steps=self.column_steps,
        )


def _eighths(octaves: np.ndarray) -> np.ndarray:
    steps: np.ndarray = np.rint(8 * octaves) + UNIT
    return steps.clip(0, 255).astype(np.uint8)


def _mean_diagonal(moments: np.ndarray) -> float:
    return float(np.trace(moments)) / max(len(moments), 1)
