"""What a tensor costs and loses at every step: measured at some, interpolated between, by theory beyond.

Theory is that of a fine uniform step: an octave wider saves one bit per weight and makes the squared error four times
as large (6.02 dB per bit, facts of entropy coded scalar quantization).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

CANDIDATES = 32  # per octave: the common step that follows a plan is finer than that anyway
COARSEST = 8.0  # octaves, int8 at +-1 level is 7
LEAST_SNR = 4.0  # energy over squared error, 6 dB: below, a tensor holds less than a bit per weight
TINY = 1e-30  # what stands for no damage, where logarithms are taken


class Point(NamedTuple):
    """A measurement.  octaves: of the step over that of the recipe.  bytes: in the artifact, tables not included.

    error: squared, over all weights.  nats: that it adds to the loss of a token; None where nothing was calibrated.
    """

    octaves: float
    bytes: float
    error: float
    nats: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """points: by rising octaves, at least one.  weights: their number.  energy: sum of their squares.

    finest, coarsest: octaves of the last steps there are.  price: damage of a unit of squared error, without nats.
    """

    points: tuple[Point, ...]
    weights: int
    energy: float
    finest: float
    coarsest: float = COARSEST
    price: float = 1.0

    def plus(self, point: Point) -> "Curve":
        """With one more measurement, instead of an earlier one of the same step."""
        kept = [each for each in self.points if each.octaves != point.octaves]
        return replace(self, points=tuple(sorted([*kept, point])))

    def bytes(self, octaves: np.ndarray) -> np.ndarray:
        """Beyond the coarsest measurement at least half of it for every octave: a tensor never costs nothing."""
        last = self.points[-1]
        least = last.bytes * np.exp2(-(octaves - last.octaves))
        straight = self._between(octaves, [each.bytes for each in self.points], -self.weights / 8)
        return np.where(octaves > last.octaves, np.maximum(straight, least), straight)

    def error(self, octaves: np.ndarray) -> np.ndarray:
        return self._by_logarithm(octaves, [each.error for each in self.points])

    def damage(self, octaves: np.ndarray) -> np.ndarray:
        """What the plan keeps small: nats, or squared error times its price."""
        nats = [each.nats for each in self.points if each.nats is not None]
        return self._by_logarithm(octaves, nats) if nats else self.price * self.error(octaves)

    def candidates(self) -> np.ndarray:
        """Steps to choose from, float64, rising: from the finest to the one that leaves 6 dB of the tensor."""
        octaves = np.arange(np.ceil(self.finest * CANDIDATES), COARSEST * CANDIDATES) / CANDIDATES
        octaves = np.unique([self.finest, *octaves[octaves <= max(self.coarsest, 0)]])
        return octaves[(octaves <= 0) | (LEAST_SNR * self.error(octaves) <= self.energy)]

    def end(self) -> float:
        """The coarsest step that leaves 6 dB: of the candidates, or of those measured, whatever lies between them."""
        fine = [each.octaves for each in self.points if LEAST_SNR * each.error <= self.energy]
        return max([float(self.candidates()[-1]), *(each for each in fine if each <= max(self.coarsest, 0))])

    def _by_logarithm(self, octaves: np.ndarray, values: Sequence[float]) -> np.ndarray:
        logarithms = np.log2(np.maximum(values, TINY))
        values_between: np.ndarray = np.exp2(self._between(octaves, logarithms, 2.0))
        return values_between

    def _between(self, octaves: np.ndarray, values: Sequence[float] | np.ndarray, slope: float) -> np.ndarray:
        measured = np.array([each.octaves for each in self.points])
        beyond = octaves - octaves.clip(measured[0], measured[-1])
        found: np.ndarray = np.interp(octaves, measured, np.asarray(values)) + slope * beyond
        return found


def choose(curves: Sequence[Curve], budget: float) -> list[float]:
    """The steps, in octaves, that do the least damage within so many bytes; the coarsest where nothing fits.

    One price of a byte holds for all tensors: each takes the step that makes damage + price * bytes least.  The
    cheapest such price that fits is found by bisection (Lagrange; Shoham and Gersho 1988).
    """
    candidates = [curve.candidates() for curve in curves]
    width = max(map(len, candidates))
    sizes, damages = (np.full((len(curves), width), np.inf) for _ in range(2))
    for row, (curve, octaves) in enumerate(zip(curves, candidates, strict=True)):
        sizes[row, : len(octaves)] = curve.bytes(octaves)
        damages[row, : len(octaves)] = curve.damage(octaves)

    rows = np.arange(len(curves))

    def at(exponent: float) -> np.ndarray:
        # A padded candidate costs inf + inf, never less than a real one.
        chosen: np.ndarray = np.argmin(damages + np.exp2(exponent) * sizes, axis=1)
        return chosen

    low, high = -160.0, 160.0
    if sizes[rows, at(low)].sum() <= budget:
        high = low
    while high - low > 2**-24:
        middle = (low + high) / 2
        low, high = (low, middle) if sizes[rows, at(middle)].sum() <= budget else (middle, high)
    return [float(octaves[place]) for octaves, place in zip(candidates, at(high), strict=True)]
