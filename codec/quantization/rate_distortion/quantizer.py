"""The treatment `rate-distortion`: one knob for a whole model, and every bit where it saves most."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from codec.decoder import QuantizedTensor, octaves
from codec.errors import InputError, UsageError
from codec.progress import Progress, silent
from codec.quantization.array_ops import LARGEST_FLOAT16
from codec.quantization.gptq import Factor, factorize
from codec.quantization.quantizers import QUANTIZERS, finite_cast
from codec.quantization.rate_distortion.feedback import FARTHEST, Matrices, quantize
from codec.quantization.rate_distortion.importance import UNIT, Steps, importance
from codec.quantization.rate_distortion.trellis import trellis_of
from codec.storage.calibration_file import Layers

FEWEST = 2048  # weights of a matrix; below, steps of rows and columns cost more than they save
FEWEST_STEPPED = 16  # weights; below, a step costs what it saves over float16
SMALL_NOISE = 0.02  # over signal, at most about: steps of half a weight, as second order is blind here too
FINE_STEP = 1.6  # fine steps of a trellis have the error of one uniform step: measured 1.55 to 1.65
AT_ONCE = 1 << 23  # weights of matrices worked on together, in 0.3 GB
Treated = QuantizedTensor | np.ndarray


@QUANTIZERS.register("rate-distortion")
@dataclass(frozen=True, kw_only=True, slots=True)
class RateDistortion:
    """Steps by importance, levels by a trellis inside GPTQ.

    nats: what the rounding may add to the loss of a token, as predicted from calibration at fine steps; the one knob.
    Without calibration an error counts by the spread of its row, and 2 * nats is the noise over the signal.
    states: of the trellis, 1 for a uniform quantizer.  restart: rows after which it starts anew.
    rate_weight: what a bit costs, in squared steps; see the module `feedback`.
    column_exponent: of the columns' steps; 0 makes all equal.
    row_exponent: of the rows' importance relative to their tensor's; 0 makes all rows alike.
    row_noise: the noise over the signal of a row is kept below about this, whatever its importance.  token_noise: that
    of a token's row, which calibration may never have met.
    gptq: whether errors are passed on.

    Raises: UsageError for parameters out of range.
    """

    nats: float = 0.005
    states: int = 128
    restart: int = 1024
    rate_weight: float = 0.3
    column_exponent: float = 1.0
    row_exponent: float = 1.0
    row_noise: float = 0.18  # less helps MiniLM and costs cpu-bench some of its KL; more the other way round
    token_noise: float = 0.08
    gptq: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.nats < math.inf:
            raise UsageError(f"a loss of {self.nats} nats", hint="it is a positive number; 0.005 is the default")
        if self.restart < 1 or not (self.row_noise > 0 and self.token_noise > 0 and self.rate_weight >= 0):
            raise UsageError("restart is at least 1, noises are above 0, rate_weight is not below 0")
        if not (math.isfinite(self.row_exponent) and math.isfinite(self.column_exponent)):
            raise UsageError("row_exponent and column_exponent are finite numbers, 0 to 1 as a rule")
        trellis_of(self.states, self.restart)

    def coarsened(self, octaves: float) -> "RateDistortion":
        """With steps 2**octaves times as wide, which loses 4**octaves as much."""
        return dataclasses.replace(self, nats=self.nats * 4.0**octaves)

    def quantize_all(
        self, tensors: Mapping[str, np.ndarray], layers: Layers | None, progress: Progress = silent
    ) -> dict[str, Treated]:
        """See `JointQuantizer`: its moments must be finite and positive definite, as its weights are finite."""
        every = sum(weights.size for weights in tensors.values())
        multiplier = (24 * self.nats / max(every, 1)) ** 0.5  # a uniform step s costs s^2 / 24 nats of importance 1
        found: dict[str, Treated] = {}
        groups: dict[tuple[int, int, bool], list[_Matrix]] = {}
        for name in sorted(tensors):
            try:
                one = self._with_one_step(name, tensors[name], layers, multiplier)
                if one is None:
                    matrix = self._matrix(name, tensors[name], layers, multiplier, every)
                    groups.setdefault(matrix.group, []).append(matrix)
                else:
                    found[name] = one
            except InputError as error:
                raise InputError(error.message, where=f"tensor `{name}`", hint=error.hint) from None
        done = sum(tensors[name].size for name in found)
        for batch in _batches(groups):
            rows, columns = batch[0].weights.shape
            for name, tensor in self._quantized(
                batch, partial(_tell, progress, done, len(batch) * rows, batch[0].name)
            ):
                found[name] = tensor._replace(levels=tensor.levels.reshape(tensors[name].shape))
            done += len(batch) * rows * columns
        return found

    def _matrix(
        self, name: str, weights: np.ndarray, layers: Layers | None, multiplier: float, every: int
    ) -> "_Matrix":
        values = finite_cast(weights, np.float32).reshape(len(weights), -1)
        known, columns = importance(name, values, layers, every), values.shape[1]
        factor = None if known.moments is None else factorize(known.moments, columns)
        most = self.token_noise if layers and name in layers.frequencies else self.row_noise
        rows = known.tempered(values, multiplier, self.row_exponent if factor else 1.0, most)
        fine = multiplier / (FINE_STEP if self.states > 1 else 2)  # a uniform quantizer uses every other level
        steps = Steps.of(rows, columns, factor, fine, self.column_exponent).reaching(values)
        return _Matrix(name=name, weights=values, factor=factor, steps=steps)

    def _with_one_step(
        self, name: str, weights: np.ndarray, layers: Layers | None, multiplier: float
    ) -> Treated | None:
        """A small tensor, or one that is no matrix; None for the others."""
        terms, fisher = (layers.terms(name), layers.fisher(name)) if layers else ([], None)
        if weights.size > FEWEST and weights.ndim > 1 and (terms or fisher is None):
            return None
        values = finite_cast(weights, np.float32)
        known = importance(name, values, layers, 1).mean() if terms else 0.0
        known += float(fisher.mean()) if fisher is not None and fisher.size else 0.0
        largest = float(abs(values).max(initial=0))
        if not known or weights.size < FEWEST_STEPPED or not largest:
            return finite_cast(weights, np.float16 if largest < LARGEST_FLOAT16 else np.float32)
        known += multiplier**2 / (12 * SMALL_NOISE * float(np.square(values, dtype=np.float64).mean()))
        scale = np.float32(max(multiplier / known**0.5 / 2, largest / FARTHEST))
        halves = np.rint(values.astype(np.float64) / (2 * scale))
        rows = len(weights) if weights.ndim > 1 else 1
        columns = np.full(weights.size // max(rows, 1), UNIT, np.uint8)
        levels, flat = (2 * halves).astype(np.int32), np.full(rows, UNIT, np.uint8)
        return QuantizedTensor(levels, np.array([scale], np.float32), columns, flat, trellis_of(1, 1))

    def _quantized(self, batch: list["_Matrix"], progress: Progress) -> Iterator[tuple[str, QuantizedTensor]]:
        """Of matrices of one shape."""
        steps, trellis = [each.steps for each in batch], trellis_of(self.states, self.restart)
        matrices = Matrices(
            weights=np.stack([each.weights for each in batch]),
            factors=[each.factor for each in batch if each.factor] if self.gptq else None,
            row_steps=np.stack([each.scale * octaves(each.row_steps) for each in steps]),
            column_steps=np.stack([octaves(each.column_steps) for each in steps]),
        )
        levels = quantize(matrices, trellis, self.rate_weight, progress)
        for each, own in zip(batch, levels, strict=True):
            scales = np.array([each.steps.scale], np.float32)
            yield each.name, QuantizedTensor(own, scales, each.steps.column_steps, each.steps.row_steps, trellis)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Matrix:
    """weights: float32 (rows, columns).  factor: of the moments of its importance, None where nothing is known."""

    name: str
    weights: np.ndarray
    factor: Factor | None
    steps: Steps

    @property
    def group(self) -> tuple[int, int, bool]:
        """What matrices that are worked on together have in common."""
        rows, columns = self.weights.shape
        return rows, columns, self.factor is not None


def _batches(groups: Mapping[tuple[int, int, bool], list[_Matrix]]) -> Iterator[list[_Matrix]]:
    for (rows, columns, _), group in sorted(groups.items()):
        most = max(AT_ONCE // max(rows * columns, 1), 1)
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _tell(progress: Progress, done: int, size: int, name: str, column: int, note: str) -> None:
    progress(done + column * size, name)
