"""What rounding does to a tensor: squared error, and the nats it is predicted to add to the loss of a token."""

import numpy as np

from codec.decoder import QuantizedTensor, octaves
from codec.storage.calibration_file import Layers

DIGITS = 9  # sums of floats differ beyond, between platforms and numbers of threads; a plan should not


def squared_error(weights: np.ndarray, treated: QuantizedTensor) -> float:
    """Over all weights, float64, to 9 digits."""
    return _rounded(float(np.square(_error(weights, treated)).sum()))


def added_nats(name: str, weights: np.ndarray, treated: QuantizedTensor, layers: Layers | None) -> float | None:
    """1/2 sum_i s_i E_i H E_i^T over the tokens of a batch; None for a tensor that was not calibrated.

    To second order, with inputs and gradients of a layer taken as independent (K-FAC; trainer/calibration.py).  Of an
    embedding that is the output matrix too it is the output side alone.
    """
    if layers is None or not layers.batch_tokens or name not in layers.hessians or name not in layers.sensitivities:
        return None
    error, hessian = _error(weights, treated), layers.hessians[name].astype(np.float64)
    rows = np.einsum("ij,ij->i", error @ hessian, error)
    return _rounded(max(float(layers.sensitivities[name] @ rows), 0.0) / 2 / layers.batch_tokens)


def rounding_noise(treated: QuantizedTensor) -> float:
    """Mean square of a step over 12: the squared error of a weight that a fine uniform grid leaves."""
    squares = np.square(treated.scales.astype(np.float64)).mean() if treated.scales.size else 0.0
    if treated.column_steps is not None and treated.column_steps.size:
        squares *= np.square(octaves(treated.column_steps).astype(np.float64)).mean()
    return _rounded(float(squares) / 12)


def _error(weights: np.ndarray, treated: QuantizedTensor) -> np.ndarray:
    error: np.ndarray = np.subtract(treated.dequantize(), weights, dtype=np.float64)
    return error


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
