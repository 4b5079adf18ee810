"""Symmetric quantizers: weights -> levels and steps.  One formula for packing, training and tests.

A scale is rounded to float16 first and the weights are divided by the rounded scale (except in `ClippedInt8`),
so that `level * scale` is what the quantizer aimed at.  A row whose scale is 0 gets levels 0; the original of
pull request 1716 divides 0 by 0 there.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError, UsageError
from codec.progress import Progress, silent
from codec.quantization.array_ops import NUMPY, Array, ArrayOps, mean, nearest, total
from codec.quantization.gptq import Factor, factorize, propagate
from codec.quantization.granularity import GRANULARITIES, UNIT, Granularity, Grid, Row, Tensor
from codec.quantization.registry import Registry
from codec.quantization.step_rules import STEP_RULES, AbsMax, Slices, StepRule, Times, quantiles
from codec.storage.calibration_file import Layers

INT8_QUANTILE = 0.9999984  # pull request 162 and its descendants clip int8 rows there


class Quantizer(Protocol):
    """What the name of a treatment stands for; register the class with `@QUANTIZERS.register(name)`.

    Its parameters are the fields of a frozen, kw-only dataclass, so that a recipe can say them.
    """

    @property
    def wants_hessian(self) -> bool:
        """Whether it does better with the second moment of the layer's inputs."""

    def quantize(self, weights: np.ndarray, hessian: np.ndarray | None = None) -> QuantizedTensor:
        """Levels int8 of the same shape and their steps.

        weights: float, any shape; rows along the first axis, a vector or scalar is one row.
        hessian: float (columns, columns), symmetric, not negative; to be ignored unless it is wanted.

        Raises: InputError for weights or a Hessian that it cannot use.
        """


@runtime_checkable
class JointQuantizer(Protocol):
    """A quantizer that treats all tensors of its rules together, by one knob for the whole model."""

    def quantize_all(
        self, tensors: Mapping[str, np.ndarray], layers: Layers | None, progress: Progress = silent
    ) -> Mapping[str, QuantizedTensor | np.ndarray]:
        """Every tensor by name.  layers: what was calibrated.  progress: told the weights done, and at which tensor.

        Raises: InputError naming a tensor that it cannot use.
        """

    def coarsened(self, octaves: float) -> "JointQuantizer":
        """With steps 2**octaves times as wide."""


QUANTIZERS = Registry["Quantizer | JointQuantizer"]("treatment")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A tensor as a formula gets it.  values: float32 (rows, columns).  vector: it is below a matrix, so one row.

    hessian: for numpy only; None in training.
    """

    values: Array
    ops: ArrayOps
    vector: bool
    hessian: np.ndarray | None = None


class Rounded(NamedTuple):
    """levels: whole numbers within int8, (rows, columns), any dtype."""

    levels: Array
    grid: Grid


class FormulaQuantizer(ABC):
    """A quantizer written over `ArrayOps`: `round` is all it says, and training can round with it too.

    >>> @dataclass(frozen=True, kw_only=True, slots=True)
    ... class Sign(FormulaQuantizer):
    ...     def round(self, rows: Rows) -> Rounded:
    ...         scales = mean(abs(rows.values), rows.ops)
    ...         return Rounded(rows.ops.xp.sign(rows.values), Grid(rows.ops.float16(scales)))
    >>> Sign().quantize(np.array([[0.25, -0.75], [1.0, 2.0]])).dequantize().tolist()
    [[0.5, -0.5], [1.5, 1.5]]
    """

    __slots__ = ()

    @property
    def wants_hessian(self) -> bool:
        return False

    @abstractmethod
    def round(self, rows: Rows) -> Rounded:
        """The levels and the steps they are multiples of."""

    def quantize(self, weights: np.ndarray, hessian: np.ndarray | None = None) -> QuantizedTensor:
        """See `Quantizer`.  scales: float16 (rows,); float32 (1,) for a vector, or one step for the whole tensor."""
        vector = weights.ndim < 2
        count = 1 if vector else len(weights)
        values = finite_cast(weights, np.float32).reshape(count, weights.size // max(count, 1))
        rows = Rows(values=values, ops=NUMPY, vector=vector, hessian=hessian if self.wants_hessian else None)
        levels, grid = self.round(rows)
        steps = None if grid.column_steps is None else grid.column_steps.astype(np.uint8)
        return QuantizedTensor(
            levels.astype(np.int8).reshape(weights.shape),
            grid.scales.ravel().astype(np.float32 if vector or grid.one_scale else np.float16),
            None if steps is None or (steps == UNIT).all() else steps,
        )


@QUANTIZERS.register("int3", bits=3)
@QUANTIZERS.register("int4", bits=4)
@QUANTIZERS.register("int5", bits=5)
@QUANTIZERS.register("int6", bits=6)
@QUANTIZERS.register("int7", bits=7)
@QUANTIZERS.register("int8", bits=8)
@QUANTIZERS.register(
    "int8-tensor", bits=8, step=AbsMax(), granularity=Tensor(), symmetric=True, gptq=False, coarser=1.0
)
@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform(FormulaQuantizer):
    """Nearest multiples of a step.  bits: 2 to 8; levels end at top = 2**(bits-1) - 1.

    step, granularity: how a step is found, and which weights share it.
    symmetric: levels in [-top, top] instead of [-top - 1, top]; some step rules always are.
    gptq: round along the layer's Hessian where one is given.  int8-tensor is pull request 1716's form of control
    tensors ("Path A v3").
    coarser: every step is so many times the rule's; levels end where they did.

    Raises: UsageError for parameters that do not go together.
    """

    bits: int
    step: StepRule = field(default=AbsMax(), metadata={"registry": STEP_RULES})
    granularity: Granularity = field(default=Row(), metadata={"registry": GRANULARITIES})
    symmetric: bool = False
    gptq: bool = False
    coarser: float = 1.0

    def __post_init__(self) -> None:
        _check_coarser(self.coarser)
        if not 2 <= self.bits <= 8:
            raise UsageError(f"{self.bits} bits per level, the quantizers do 2 to 8")
        if self.step.floored and self.granularity.divides:
            raise UsageError(
                "the step rule bounds the step of a weight from below, row-column fits rows to weights it has divided",
                hint="take `absmax`, `std` or `power`, or another granularity",
            )

    @property
    def top(self) -> int:
        return int(2 ** (self.bits - 1) - 1)

    @property
    def wants_hessian(self) -> bool:
        return self.gptq

    def round(self, rows: Rows) -> Rounded:
        slices = Slices(values=rows.values, ops=rows.ops, top=self.top, symmetric=self.symmetric, vector=rows.vector)
        factor = None
        if rows.hessian is not None and 0 not in rows.values.shape:
            factor = factorize(rows.hessian, rows.values.shape[1])
        step = self.step if self.coarser == 1 else Times(rule=self.step, factor=self.coarser)
        found = [self._rounded(rows, grid, factor) for grid in self.granularity.grids(step, slices)]
        # The first of equally good candidates, as the original's strict comparison.
        return min(found, key=lambda each: _mean_error(rows, each)) if len(found) > 1 else found[0]

    def _rounded(self, rows: Rows, grid: Grid, factor: Factor | None) -> Rounded:
        low = -self.top if self.symmetric or self.step.symmetric else -self.top - 1
        if factor:
            return Rounded(propagate(rows.values, factor, grid, low, self.top), grid)
        divided = grid.divided(rows.values, rows.ops)
        return Rounded(nearest(divided, grid.scales, low, self.top, rows.ops), grid)


@QUANTIZERS.register("int8-clipped")
@dataclass(frozen=True, kw_only=True, slots=True)
class ClippedInt8(FormulaQuantizer):
    """Rows clipped at their 0.9999984 quantile, scale = max(clip / 127, 1 / 127), levels in [-127, 127].

    Two or more dimensions: scales float16 (rows,).  Vectors and scalars: one float32 scale (1,), clip / 127 or 1.
    The division uses the float32 scale, as the original does; only the stored one is rounded.
    coarser: every step is so many times that.

    Source: openai/parameter-golf pull requests 162, 339, 1176: their int8 form.
    """

    coarser: float = 1.0

    def __post_init__(self) -> None:
        _check_coarser(self.coarser)

    def round(self, rows: Rows) -> Rounded:
        xp = rows.ops.xp
        (clip,) = quantiles(rows.values, [INT8_QUANTILE], rows.ops)
        top, one = xp.full_like(clip, 127), xp.full_like(clip, 1)
        steps = clip / top
        steps = xp.where(steps > 0, steps, one) if rows.vector else xp.maximum(steps, one / top)
        steps = steps if self.coarser == 1 else steps * float(np.float32(self.coarser))
        levels = nearest(rows.values.clip(-clip, clip), steps, -127, 127, rows.ops)
        return Rounded(levels, Grid(steps if rows.vector else rows.ops.float16(steps)))


@QUANTIZERS.register("five-levels")
@dataclass(frozen=True, kw_only=True, slots=True)
class FiveLevels(FormulaQuantizer):
    """Levels in [-2, 2]: |w| beyond 0.7 and 1.4 times the row's mean |w|; the scale by least squares, 0 for a zero row.

    Source: openai/parameter-golf pull request 1123, MLP up.
    """

    def round(self, rows: Rows) -> Rounded:
        xp, values = rows.ops.xp, rows.values
        size = abs(values)
        threshold = mean(size, rows.ops)
        levels = xp.sign(values) * (xp.asarray(size > 0.7 * threshold, dtype=xp.float32) + (size > 1.4 * threshold))
        energy = total(levels * levels, rows.ops)
        scales = total(values * levels, rows.ops) / xp.where(energy > 0, energy, 1.0)  # both products are exact
        return Rounded(levels, Grid(rows.ops.float16(scales)))


def finite_cast(weights: np.ndarray, dtype: type) -> np.ndarray:
    """The weights as float16 or float32.

    Raises: InputError for NaN, infinity, or what the dtype cannot hold.
    """
    with np.errstate(over="ignore"):
        cast: np.ndarray = weights.astype(dtype)
    bad = weights.size - int(np.isfinite(cast).sum())
    if bad:
        lost = int(np.isfinite(weights).sum()) - int(np.isfinite(cast).sum())
        reason = f"are beyond {np.dtype(dtype).name}" if lost == bad else "are not finite"
        raise InputError(f"{bad} of {weights.size} weights {reason}", hint="go back to an earlier checkpoint")
    return cast


def _check_coarser(factor: float) -> None:
    if not 0 < factor < math.inf:
        raise UsageError(f"steps {factor} times as wide", hint="`coarser` is a positive number, 1 changes nothing")


def _mean_error(rows: Rows, rounded: Rounded) -> float:
    """float32, as the original compares."""
    error = rows.values - rounded.grid.values(rounded.levels, rows.ops)
    return float((error * error).mean())
