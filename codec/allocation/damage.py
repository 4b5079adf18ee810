"""What rounding does to a tensor: squared error, and the nats it is predicted to add to the loss of a token."""

import numpy as np

from codec.decoder import QuantizedTensor, octaves
from codec.storage.calibration_file import Layers

DIGITS = 9  # sums of floats differ beyond, between platforms and numbers of threads; a plan should not


def squared_error(weights: np.ndarray, treated: QuantizedTensor) -> float:
    """Over all weights, float64, to 9 digits."""
    return _rounded(float(np.square(_error(weights, treated)).sum()))


def added_nats(
    name: str, weights: np.ndarray, treated: QuantizedTensor | np.ndarray, layers: Layers | None
) -> float | None:
    """What the tensor's error adds to the loss of a token, to second order; None for one that was not calibrated.

    See `Layers.terms` and `Layers.fisher`.
    """
    terms = layers.terms(name) if layers else []
    fisher = layers.fisher(name) if layers else None
    if not terms and fisher is None:
        return None
    error = _error(weights, treated)
    total = 0.0 if fisher is None else float((fisher * np.square(error)).sum())
    for rows, moments in terms:
        total += float(rows @ np.einsum("ij,ij->i", error @ moments, error))
    return _rounded(max(total, 0.0) / 2)


def rounding_noise(treated: QuantizedTensor) -> float:
    """Mean square of a step over 12: the squared error of a weight that a fine uniform grid leaves."""
    squares = np.square(treated.scales.astype(np.float64)).mean() if treated.scales.size else 0.0
    if treated.column_steps is not None and treated.column_steps.size:
        squares *= np.square(octaves(treated.column_steps).astype(np.float64)).mean()
    return _rounded(float(squares) / 12)


def _error(weights: np.ndarray, treated: QuantizedTensor | np.ndarray) -> np.ndarray:
    values = treated.dequantize() if isinstance(treated, QuantizedTensor) else treated
    error: np.ndarray = np.subtract(values, weights, dtype=np.float64)
    return error


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
