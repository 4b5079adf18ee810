"""Step rules: the weights that share a step -> that step.  Which weights share one is the granularity's business."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codec.errors import UsageError
from codec.quantization.array_ops import Array, ArrayOps, mean, peak, total
from codec.quantization.registry import Registry

SMALLEST_SCALE = 2.0**-14  # the smallest normal float16: below it a scale loses its relative precision
LOST = 2.0**-25  # float16 rounds this and anything below to 0
SEARCHED_QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)  # pull request 1176


@dataclass(frozen=True, kw_only=True, slots=True)
class Slices:
    """values: float32 (slices, weights of each).  top: the highest level.

    symmetric: levels end at -top, not at -top - 1.  vector: they come from a tensor below a matrix.
    """

    values: Array
    ops: ArrayOps
    top: int
    symmetric: bool = False
    vector: bool = False

    @property
    def peak(self) -> Array:
        """max|w| of every slice, float32 (slices, 1)."""
        return peak(self.values, self.ops)


class StepRule(ABC):
    """Register with `@STEP_RULES.register(name)`; parameters are fields of a frozen, kw-only dataclass.

    symmetric: its levels never use -top - 1.  floored: its step has a lower bound in units of the weights, which a
    granularity that divides the weights first cannot keep.
    """

    __slots__ = ()
    symmetric: ClassVar[bool] = False
    floored: ClassVar[bool] = False

    @abstractmethod
    def steps(self, slices: Slices) -> Iterator[Array]:
        """Candidates, each float32 (slices, 1), not negative.

        Of several the quantizer takes the one with the least squared error over the whole tensor.
        """


STEP_RULES = Registry[StepRule]("step rule")


@STEP_RULES.register("absmax")
@dataclass(frozen=True, kw_only=True, slots=True)
class AbsMax(StepRule):
    """max|w| / top.  Source: openai/parameter-golf pull request 162, and 1716's small tensors."""

    def steps(self, slices: Slices) -> Iterator[Array]:
        xp, peak = slices.ops.xp, slices.peak
        steps = peak / xp.full_like(peak, slices.top)
        # The original of 162 floors the scales of matrices; 1716's symmetric form lets them become 0.
        floored = not (slices.symmetric or slices.vector)
        yield xp.maximum(steps, xp.full_like(peak, SMALLEST_SCALE)) if floored else steps


@STEP_RULES.register("floor")
@dataclass(frozen=True, kw_only=True, slots=True)
class Floor(StepRule):
    """max(max|w|, 1) / top; a vector is not floored, a zero one has step 1.  Source: pull request 339."""

    floored: ClassVar[bool] = True

    def steps(self, slices: Slices) -> Iterator[Array]:
        xp, peak = slices.ops.xp, slices.peak
        top, one = xp.full_like(peak, slices.top), xp.full_like(peak, 1)
        yield xp.where(peak > 0, peak / top, one) if slices.vector else xp.maximum(peak / top, one / top)


@STEP_RULES.register("search")
@dataclass(frozen=True, kw_only=True, slots=True)
class Search(StepRule):
    """Five quantiles of |w| over top, with the lower bound of `floor`; of a vector the maximum.

    Source: pull request 1176.
    """

    symmetric: ClassVar[bool] = True
    floored: ClassVar[bool] = True

    def steps(self, slices: Slices) -> Iterator[Array]:
        if slices.vector:
            yield from Floor().steps(slices)
            return
        xp = slices.ops.xp
        for clip in quantiles(slices.values, SEARCHED_QUANTILES, slices.ops):
            top = xp.full_like(clip, slices.top)
            yield xp.maximum(clip / top, xp.full_like(clip, 1) / top)


@STEP_RULES.register("std")
@dataclass(frozen=True, kw_only=True, slots=True)
class Std(StepRule):
    """k * std(w) / top, unbiased std; as `absmax` for a slice without spread.  Source: pull request 1716 (SDClip)."""

    k: float
    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.k > 0:
            raise UsageError(f"step rule `std` with k = {self.k}", hint="k is how many deviations the levels span")

    def steps(self, slices: Slices) -> Iterator[Array]:
        xp, peak = slices.ops.xp, slices.peak
        top = xp.full_like(peak, slices.top)
        steps = float(np.float32(self.k)) * self._spread(slices) / top
        # A slice of one value has no spread: the original loses it.
        yield xp.where(steps > LOST, steps, peak / top)

    @staticmethod
    def _spread(slices: Slices) -> Array:
        """float32 (slices, 1); 0 for a single weight."""
        xp = slices.ops.xp
        deviations = xp.asarray(slices.values, dtype=xp.float64) - mean(slices.values, slices.ops)
        variance = total(deviations * deviations, slices.ops) / max(deviations.shape[1] - 1, 1)
        return xp.asarray(xp.sqrt(variance), dtype=xp.float32)


@STEP_RULES.register("power")
@dataclass(frozen=True, kw_only=True, slots=True)
class Power(StepRule):
    """max|w| / (top + 1), levels still at most top.  Source: pull request 1123."""

    symmetric: ClassVar[bool] = True

    def steps(self, slices: Slices) -> Iterator[Array]:
        peak = slices.peak
        yield peak / slices.ops.xp.full_like(peak, slices.top + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Times(StepRule):
    """Another rule's steps times a factor.  It has no name: a quantizer calls its factor `coarser`."""

    rule: StepRule
    factor: float

    def steps(self, slices: Slices) -> Iterator[Array]:
        for steps in self.rule.steps(slices):
            yield steps * float(np.float32(self.factor))


def quantiles(values: Array, fractions: Sequence[float], ops: ArrayOps) -> Iterator[Array]:
    """Linear-interpolated quantiles of |values| in every row, each float32 (rows, 1), float32 throughout."""
    columns = values.shape[1]
    if not columns:
        yield from (peak(values, ops) for _ in fractions)
        return
    ranks = [np.float32(fraction) * np.float32(columns - 1) for fraction in fractions]
    lows = [int(rank) for rank in ranks]
    neighbours = [each for low in lows for each in (low, min(low + 1, columns - 1))]
    found = ops.ranked(abs(values), neighbours)
    for index, (rank, low) in enumerate(zip(ranks, lows, strict=True)):
        below, above = found[:, 2 * index, None], found[:, 2 * index + 1, None]
        weight, gap = np.float32(rank - np.float32(low)), above - below
        # The form of a linear interpolation that is exact at the nearer end.
        yield below + float(weight) * gap if weight < 0.5 else above - gap * float(np.float32(1) - weight)
