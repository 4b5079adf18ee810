"""What a level costs before anything is coded: bits under a normal distribution of the weights, with heavier tails.

The encoder's own tables are only known when all levels are.  Decisions need differences of a tenth of a bit.
"""

import numpy as np

SPAN = 128  # levels beyond cost what the last does: there a step is below 1/60 of the spread, bits hardly differ
CLASSES, LOWEST = 20, -12  # of the rows' spread, half an octave each, around the matrix's own
TAIL, TAIL_WIDTH = 0.003, 4.0  # part of the weights that is spread so much wider
LEAST = 1e-9  # probability


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Of the standard normal distribution, off by at most 1.5e-7.  Source: Abramowitz and Stegun 7.1.26."""
    t = 1 / (1 + 0.3275911 / np.sqrt(2) * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * np.exp(-x * x / 2) / 2
    below: np.ndarray = np.where(x > 0, 1 - tail, tail)
    return below


def level_costs(spread: np.ndarray) -> np.ndarray:
    """spread: float (...,), deviation of the weights in steps -> float32 (..., SPAN): bits of the levels +-0, 1, 2, ...

    A level is coded among those of its parity, so it stands for an interval of two steps.
    """
    levels, chances = np.arange(SPAN), np.float64(LEAST)
    for part, width in ((1 - TAIL, 1.0), (TAIL, TAIL_WIDTH)):
        step = 1 / (width * np.maximum(spread, 1e-3))[..., None]
        chances = chances + part * (normal_cdf((levels + 1) * step) - normal_cdf((levels - 1) * step))
    bits: np.ndarray = -np.log2(chances)
    return bits.astype(np.float32)


def spread_classes(weights: np.ndarray) -> np.ndarray:
    """weights: float (..., rows, columns), in steps -> int64 (..., rows), the class of each row's spread."""
    rows = np.square(weights).mean(-1)
    relative = rows / np.maximum(rows.mean(-1, keepdims=True), 1e-30)
    found: np.ndarray = np.rint(np.log2(np.maximum(relative, 1e-30))) - LOWEST
    return found.clip(0, CLASSES - 1).astype(np.int64)


SPREADS = 2.0 ** ((np.arange(CLASSES) + LOWEST) / 2)  # of the classes, relative
