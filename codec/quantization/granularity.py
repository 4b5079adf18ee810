"""Granularities: which weights share a step, and how the artifact says it.

The step of weight (i, j) is the scale of row i times the factor of column j, a power of two in eighths of an octave
(`QuantizedTensor`).  So a step for every row, for every column or block of columns, and a product of the two can be
said; a step for every block of a row cannot.  A vector is one row whatever the granularity.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from codec.decoder import octaves
from codec.errors import UsageError
from codec.quantization.array_ops import Array, ArrayOps, mean
from codec.quantization.registry import Registry
from codec.quantization.step_rules import SMALLEST_SCALE, Slices, StepRule

UNIT = 128  # the column step that stands for 1
COLUMN_SCALES = octaves(np.arange(256, dtype=np.uint8))
ROUNDING = 1e-9  # of an eighth of an octave: what a logarithm may be off without pushing a step into the next one


class Grid(NamedTuple):
    """The steps of a matrix.  scales: float32 (rows, 1), values that float16 holds; or (1, 1) for one_scale.

    column_steps: whole numbers 0 to 255 (columns,) as in `QuantizedTensor`, None for all 1.
    """

    scales: Array
    column_steps: Array | None = None
    one_scale: bool = False

    def divided(self, rows: Array, ops: ArrayOps) -> Array:
        """The weights in units of their columns."""
        return rows if self.column_steps is None else rows / ops.lookup(COLUMN_SCALES, self.column_steps)

    def values(self, levels: Array, ops: ArrayOps) -> Array:
        """float32 (rows, columns): what `QuantizedTensor.dequantize` makes of these levels."""
        if self.column_steps is not None:
            levels = levels * ops.lookup(COLUMN_SCALES, self.column_steps)
        return levels * self.scales


class Granularity(ABC):
    """Register with `@GRANULARITIES.register(name)`.  divides: the rule sees weights in units of their columns."""

    __slots__ = ()
    divides: ClassVar[bool] = False

    @abstractmethod
    def grids(self, rule: StepRule, rows: Slices) -> Iterator[Grid]:
        """One for each candidate of the rule.  rows: the matrix, a slice for every row."""


GRANULARITIES = Registry[Granularity]("granularity")


@GRANULARITIES.register("tensor")
@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor(Granularity):
    """One float32 step."""

    def grids(self, rule: StepRule, rows: Slices) -> Iterator[Grid]:
        for steps in rule.steps(replace(rows, values=rows.values.reshape(1, -1))):
            yield Grid(steps, one_scale=True)


@GRANULARITIES.register("row")
@dataclass(frozen=True, kw_only=True, slots=True)
class Row(Granularity):
    """A float16 step for every row."""

    def grids(self, rule: StepRule, rows: Slices) -> Iterator[Grid]:
        if 0 in rows.values.shape:  # no weights, no step
            yield Grid(rows.peak)
            return
        for steps in rule.steps(rows):
            yield Grid(rows.ops.float16(steps))


@GRANULARITIES.register("column")
@dataclass(frozen=True, kw_only=True, slots=True)
class Column(Granularity):
    """A step for every block of columns, all rows alike; rounded up, so that nothing clips that the rule did not clip.

    block: columns that share a step; the last block may be narrower.
    """

    block: int = 1

    def __post_init__(self) -> None:
        _check_block(self.block)

    def grids(self, rule: StepRule, rows: Slices) -> Iterator[Grid]:
        if rows.vector or 0 in rows.values.shape:
            yield from Row().grids(rule, rows)
            return
        xp = rows.ops.xp
        blocks = [replace(rows, values=values) for values in _blocks(rows.values, self.block)]
        for parts in zip(*(rule.steps(each) for each in blocks), strict=True):
            steps = xp.concatenate(parts)
            largest = xp.amax(steps, 0)[:, None]
            scale = rows.ops.float16(xp.maximum(largest, xp.full_like(largest, SMALLEST_SCALE)))
            eighths = xp.ceil(_octaves(steps / scale, rows.ops) * 8 - ROUNDING)
            scales = xp.broadcast_to(scale, (len(rows.values), 1))
            yield Grid(scales, _column_steps(eighths, self.block, rows))


@GRANULARITIES.register("row-column")
@dataclass(frozen=True, kw_only=True, slots=True)
class RowColumn(Granularity):
    """A step for every row times a factor for every block of columns.

    The factor is the columns' root mean square over that of the matrix, to the nearest eighth of an octave; the rule
    then finds the rows' steps from the weights divided by it.  With a Hessian, GPTQ rounds on this grid.
    block: columns that share a factor.
    """

    block: int = 1
    divides: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_block(self.block)

    def grids(self, rule: StepRule, rows: Slices) -> Iterator[Grid]:
        if rows.vector or 0 in rows.values.shape:
            yield from Row().grids(rule, rows)
            return
        ops, xp = rows.ops, rows.ops.xp
        energy = xp.concatenate([_energy(values, ops) for values in _blocks(rows.values, self.block)])
        relative = energy / xp.where(energy > 0, _energy(rows.values.reshape(1, -1), ops), 1.0)
        column_steps = _column_steps((_octaves(relative, ops) * 4).round(), self.block, rows)
        divided = Grid(rows.values, column_steps).divided(rows.values, ops)
        for steps in rule.steps(replace(rows, values=divided)):
            yield Grid(ops.float16(steps), column_steps)


def _check_block(block: int) -> None:
    if block < 1:
        raise UsageError(f"a block of {block} columns", hint="1 gives every column its own step")


def _blocks(values: Array, block: int) -> list[Array]:
    """The columns as slices, (blocks, rows * block), and the narrower last block apart."""
    rows, columns = values.shape
    whole = columns - columns % block
    parts = [values[:, :whole].T.reshape(-1, rows * block), values[:, whole:].T.reshape(1, -1)]
    return [each for each in parts if 0 not in each.shape]


def _energy(slices: Array, ops: ArrayOps) -> Array:
    """Mean square, float64 (slices, 1)."""
    wide = ops.xp.asarray(slices, dtype=ops.xp.float64)
    return mean(wide * wide, ops)


def _octaves(ratio: Array, ops: ArrayOps) -> Array:
    """log2 in float64; 0 where there is nothing to scale."""
    return ops.xp.log2(ops.xp.asarray(ops.xp.where(ratio > 0, ratio, 1.0), dtype=ops.xp.float64))


def _column_steps(eighths: Array, block: int, rows: Slices) -> Array:
    """Of blocks, (blocks, 1) -> of columns, (columns,), within what a byte holds."""
    wide = rows.ops.xp.broadcast_to(eighths + UNIT, (len(eighths), block))
    return wide.reshape(-1)[: rows.values.shape[1]].clip(0, 255)
