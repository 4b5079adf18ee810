"""The least error that any quantizer can leave at a rate, were the weights Gaussian: reverse water-filling."""

import numpy as np

from codec.measurement.byte_ledger import empirical_entropy_bits
from codec.quantization.rate_distortion.feedback import Matrices, quantize
from codec.quantization.rate_distortion.quantizer import FINE_STEP
from codec.quantization.rate_distortion.trellis import trellis_of


def gap(variances: np.ndarray, distortion: float, bits: float) -> float:
    """How far a quantizer is from the bound, in dB of error at its own rate.

    variances: float64 (components,).  distortion: its error, summed over them.  bits: its rate, of all together.
    """
    return float(10 * np.log10(distortion / least_distortion(variances, bits)))


def least_distortion(variances: np.ndarray, bits: float) -> float:
    """D(R): sum of min(theta, v) at the theta where the sum of max(0, log2(v / theta)) / 2 is the rate."""
    known = np.sort(variances[variances > 0])[::-1]
    logs = np.log2(known)
    sums, counts = np.cumsum(logs), np.arange(1, len(known) + 1)
    # With the k largest components above the water: bits = (their log sum - k log theta) / 2.
    thetas = (sums - 2 * bits) / counts
    above = np.flatnonzero(np.append(logs[1:], -np.inf) <= thetas)
    last = int(above[0])
    theta = min(2.0 ** thetas[last], known[0])
    return float(np.minimum(theta, known).sum())


def component_variances(weights: np.ndarray, moments: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of a matrix whose weight (r, j) is Gaussian of variance s_r^2 c_j, under sum_r rows[r] E_r moments E_r^T.

    s_r^2: mean square of row r.  c_j: of column j, relative.  weights: (rows, columns).  Returns float64, (rows *
    columns,): rows[r] s_r^2 times the eigenvalues of the moments between square roots of c.
    """
    squares = np.square(weights, dtype=np.float64)
    energy = squares.mean(1)
    columns = (squares / np.maximum(energy, 1e-300)[:, None]).mean(0)
    root = np.sqrt(columns)
    eigenvalues = np.linalg.eigvalsh(root[:, None] * moments * root).clip(0)
    return np.outer(rows * energy, eigenvalues).ravel()


def ideal_gap(states: int, rate_weight: float, step: float = 0.5, seed: int = 0) -> tuple[float, float]:
    """(bits per weight, dB above the bound) of a trellis on independent N(0, 1) weights, coded at their entropy.

    What is left of a matrix's own distance are its side information and what makes it no Gaussian.
    step: of a uniform quantizer with the trellis's error; 0.5 is about 3 bits.
    """
    rows, columns = 1024, 512
    weights = np.random.default_rng(seed).standard_normal((1, rows, columns)).astype(np.float32)
    fine = step / (FINE_STEP if states > 1 else 2)
    steps = np.full((1, rows), fine, np.float32)
    batch = Matrices(weights=weights, factors=None, row_steps=steps, column_steps=np.ones((1, columns), np.float32))
    levels = quantize(batch, trellis_of(states, rows), rate_weight)[0]
    odd = levels % 2 == 1
    bits = empirical_entropy_bits(levels[odd]) + empirical_entropy_bits(levels[~odd])
    energy = float(np.square(weights, dtype=np.float64).mean())
    error = float(np.square(levels * np.float64(fine) - weights[0]).sum())
    return bits / levels.size, gap(np.full(levels.size, energy), error, bits)
