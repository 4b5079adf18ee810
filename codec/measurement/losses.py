"""What quantization loses without an error: tensors and rows that are rounded to zero, and ratios that say so."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from codec.decoder import QuantizedTensor

SHOWN = 4  # tensors named in a note
FAINT = 3.0  # dB; two levels of equal weights keep 4.4 of a Gaussian, below half of the energy is gone


class Loss(NamedTuple):
    """Of one tensor.  signal, noise: energy of the weights, and of their error, float64 sums.

    rows: those that were not zero and are now, of all_rows; a vector is one row.  gone: the whole tensor.
    """

    name: str
    signal: float
    noise: float
    rows: int
    all_rows: int
    gone: bool

    @property
    def snr_db(self) -> float:
        """Infinite without error."""
        return decibel(self.signal, self.noise)


def losses(tensors: Mapping[str, np.ndarray], treated: Mapping[str, QuantizedTensor | np.ndarray]) -> dict[str, Loss]:
    """Of each float tensor that is treated.  Zeros were lost to no one: a tensor of them has no error."""
    found = {}
    for name in sorted(tensors.keys() & treated.keys()):
        if tensors[name].dtype.kind == "f" and tensors[name].size:
            found[name] = _loss(name, tensors[name], treated[name])
    return found


def loss_notes(found: Mapping[str, Loss]) -> tuple[str, ...]:
    """A sentence for each kind of silent damage, worst tensors first."""
    worst = sorted(found.values(), key=lambda loss: (loss.snr_db, loss.name))
    gone = [loss for loss in worst if loss.gone]
    rows = [loss for loss in worst if loss.rows and not loss.gone]
    faint = [loss for loss in worst if loss.snr_db < FAINT and not loss.rows]
    notes = []
    if gone:
        notes.append(f"rounded to zero: {_named([(loss, 'all of ') for loss in gone])}")
    if rows:
        parts = [(loss, f"{loss.rows:,} of {loss.all_rows:,} rows of ") for loss in rows]
        notes.append(f"rounded to zero: {_named(parts)}")
    if faint:
        notes.append(f"the error is more than half of the weights: {_named([(loss, '') for loss in faint])}")
    return tuple(notes)


def _loss(name: str, weights: np.ndarray, treated: QuantizedTensor | np.ndarray) -> Loss:
    values = treated.dequantize() if isinstance(treated, QuantizedTensor) else treated
    rows = weights.reshape(len(weights) if weights.ndim > 1 else 1, -1)
    kept, exact = values.reshape(rows.shape), rows.astype(np.float64)
    signal = float(np.square(exact).sum())
    lost = (exact != 0).any(1) & ~(kept != 0).any(1)
    return Loss(
        name=name,
        signal=signal,
        noise=float(np.square(kept.astype(np.float64) - exact).sum()),
        rows=int(lost.sum()),
        all_rows=len(rows),
        gone=bool(signal) and not kept.any(),
    )


def decibel(signal: float, noise: float) -> float:
    """The ratio of two energies; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _named(parts: list[tuple[Loss, str]]) -> str:
    named = ", ".join(f"{what}`{loss.name}` (SNR {loss.snr_db:.1f} dB)" for loss, what in parts[:SHOWN])
    return named + (f" and of {len(parts) - SHOWN} more tensors" if len(parts) > SHOWN else "")
