"""Symmetric quantizers: weights -> levels and scales.  One formula for packing, training and tests.

A scale is rounded to float16 first and the weights are divided by the rounded scale (except in `quantize_int8`),
so that `level * scale` is what the quantizer aimed at.  A row whose scale is 0 gets levels 0; the original of
pull request 1716 divides 0 by 0 there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError, UsageError

SMALLEST_SCALE = np.float16(2**-14)  # the smallest normal float16: below it a scale loses its relative precision
INT8_QUANTILE = 0.9999984  # pull request 162 and its descendants clip int8 rows there
SEARCHED_QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)  # pull request 1176
DAMPING = 0.01  # of the Hessian's mean diagonal; 0.1 and 0.001 are 0.2 and 0.03 dB worse
BLOCK = 128  # columns whose errors are propagated one by one; later blocks get them in one product
STEPS = ("absmax", "floor", "search", "std", "power", "five")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowQuantizer:
    """bits: 2 to 8; qmax = 2**(bits-1) - 1.  step: how a row's scale is found,

    absmax   max|row| / qmax                                             pull requests 162, 1716's small tensors
    floor    max(max|row|, 1) / qmax                                     339
    search   of five quantiles of |row| with that floor, the one with
             the least squared error over the whole matrix               1176
    std      k * std(row) / qmax, unbiased std; as absmax for a row
             without spread                                              1716 (SDClip)
    power    max|row| / 2**(bits-1), levels still at most qmax           1123
    five     five levels: |w| beyond 0.7 and 1.4 times the row's mean
             |w|, scale by least squares; bits = 3                       1123, MLP up

    symmetric: for absmax and floor, levels in [-qmax, qmax] instead of [-qmax - 1, qmax]; the others always are.
    Source: openai/parameter-golf, the pull requests named.
    """

    bits: int
    step: str = "absmax"
    k: float = 0.0
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError(f"{self.bits} bits per level, the quantizers do 2 to 8")
        if self.step not in STEPS:
            raise UsageError(f"unknown step rule `{self.step}`", hint=f"known: {', '.join(STEPS)}")
        if (self.step == "std") != (self.k > 0):
            raise UsageError(f"step rule `{self.step}` with k = {self.k}", hint="k > 0 belongs to `std` and only to it")
        if self.step == "five" and self.bits != 3:
            raise UsageError(f"step rule `five` with {self.bits} bits", hint="five levels take 3 bits")

    @property
    def top(self) -> int:
        return int(2 ** (self.bits - 1) - 1)

    def quantize(self, weights: np.ndarray, hessian: np.ndarray | None = None) -> QuantizedTensor:
        """Round to nearest, or GPTQ when the second moment of the layer's inputs is given.

        weights: float (rows, ...); a vector or scalar is one row, its scale kept as float32 (1,).
        hessian: float (columns, columns), symmetric, not negative.
        -> levels int8 of the same shape, scales float16 (rows,).

        Raises: InputError for non-finite weights, a scale beyond float16, a Hessian of a wrong shape.
        """
        rows = _rows(weights)
        if not weights.size:
            return QuantizedTensor(np.zeros(weights.shape, np.int8), _stored(np.zeros(len(rows), np.float16), weights))
        if self.step == "five":
            levels, scales = _five_levels(rows)
            return QuantizedTensor(levels.reshape(weights.shape), _stored(scales, weights))
        found = [self._levels(rows, scales, hessian) for scales in self._scales(rows, weights.ndim)]
        # The first of equally good candidates, as the original's strict comparison.
        levels, scales = min(found, key=lambda pair: _mean_error(rows, *pair)) if len(found) > 1 else found[0]
        return QuantizedTensor(levels.reshape(weights.shape), _stored(scales, weights))

    def _scales(self, rows: np.ndarray, ndim: int) -> Iterator[np.ndarray]:
        """Candidates, float16 (rows,)."""
        top = np.float32(self.top)
        peak = np.abs(rows).max(1, initial=0)
        if self.step == "power":
            yield _float16(peak / (top + 1))
        elif ndim < 2 and self.step in ("floor", "search"):
            # The originals neither floor nor search a vector.
            yield _float16(np.where(peak > 0, peak / top, np.float32(1)))
        elif self.step == "search":
            for fraction in SEARCHED_QUANTILES:
                yield _float16(np.maximum(_quantile(np.abs(rows), fraction) / top, 1 / top))
        elif self.step == "std":
            spread = rows.astype(np.float64).std(1, ddof=1) if rows.shape[1] > 1 else np.zeros(len(rows))
            scales = _float16(np.maximum(np.float32(self.k) * spread.astype(np.float32) / top, np.float32(1e-10)))
            # A row of one value has no spread: the original loses it.
            yield np.where(scales > 0, scales, _float16(peak / top))
        else:
            smallest = 1 / top if self.step == "floor" else np.float32(1e-12)
            scales = _float16(np.maximum(peak / top, smallest))
            # The original of 162 floors the scales of matrices; 1716's symmetric form lets them become 0.
            yield scales if self.symmetric or ndim < 2 else np.maximum(scales, SMALLEST_SCALE)

    def _levels(
        self, rows: np.ndarray, scales: np.ndarray, hessian: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        low = -self.top if self.symmetric or self.step in ("search", "std", "power") else -self.top - 1
        if hessian is None:
            return _round(rows, scales, low, self.top).astype(np.int8), scales
        return _gptq(rows, hessian, scales, low, self.top), scales


def quantize_int8(weights: np.ndarray) -> QuantizedTensor:
    """Rows clipped at their 0.9999984 quantile, scale = max(clip / 127, 1 / 127), levels in [-127, 127].

    Two or more dimensions: levels int8, scales float16 (rows,).  Vectors and scalars: one float32 scale (1,).
    The division uses the float32 scale, as the original does; only the stored one is rounded.

    Raises: InputError for non-finite weights or a scale beyond float16.
    Source: openai/parameter-golf pull requests 162, 339, 1176: their int8 form.
    """
    rows = _rows(weights)
    clip = _quantile(np.abs(rows), INT8_QUANTILE)
    if weights.ndim > 1:
        scales = np.maximum(clip / np.float32(127), np.float32(1 / 127))
    else:
        scales = np.where(clip / np.float32(127) > 0, clip / np.float32(127), np.float32(1))
    clipped = rows.clip(-clip[:, None], clip[:, None])
    levels = np.rint(clipped / scales[:, None]).clip(-127, 127).astype(np.int8).reshape(weights.shape)
    return QuantizedTensor(levels, _float16(scales) if weights.ndim > 1 else scales)


def quantize_tensor(weights: np.ndarray) -> QuantizedTensor:
    """int8 with one float32 scale (1,) = max|w| / 127 for the whole tensor; a zero tensor has levels 0.

    Raises: InputError for non-finite weights.
    Source: openai/parameter-golf pull request 1716, control tensors ("Path A v3").
    """
    row = _rows(weights).reshape(1, -1)
    scales = np.abs(row).max(1, initial=0) / np.float32(127)
    return QuantizedTensor(_round(row, scales, -127, 127).astype(np.int8).reshape(weights.shape), scales)


def level_bits(levels: np.ndarray) -> int:
    """Bits of the smallest signed integer that holds every level: 6 for -32 to 31, 1 where all are 0."""
    return max(int(levels.max(initial=0)), -1 - int(levels.min(initial=0))).bit_length() + 1


def _gptq(rows: np.ndarray, hessian: np.ndarray, scales: np.ndarray, low: int, top: int) -> np.ndarray:
    """Quantize column by column, pushing each column's error into those that are still float.

    Columns by descending Hessian diagonal; the error of column j goes to the later ones along row j of the upper
    Cholesky factor of the inverse Hessian.  A column that no input reaches has weight 0.  -> int8 (rows, columns)

    Source: GPTQ (Frantar et al. 2022), in the form of pull requests 1176 and 1716.
    """
    columns = rows.shape[1]
    if hessian.shape != (columns, columns):
        raise InputError(
            f"has {columns} columns, its Hessian is {hessian.shape}",
            hint="calibrate with the checkpoint that is packed",
        )
    if not np.isfinite(hessian).all():
        raise InputError("its Hessian is not finite", hint="calibrate again")
    second_moment = hessian.astype(np.float32)
    diagonal = np.einsum("ii->i", second_moment)  # a view: writing to it writes to the matrix
    dead = diagonal == 0
    left = np.where(dead, np.float32(0), rows)
    diagonal[dead] = 1
    diagonal += np.float32(DAMPING) * diagonal.mean()
    order = np.argsort(-diagonal, kind="stable")
    left = left[:, order]
    try:
        inverse = np.linalg.inv(second_moment[np.ix_(order, order)].astype(np.float64))
        upper: np.ndarray = np.linalg.cholesky(inverse).T.astype(np.float32)
    except np.linalg.LinAlgError:
        raise InputError("its Hessian is not positive definite", hint="calibrate on more tokens") from None
    levels = np.zeros(left.shape, np.int8)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.zeros((len(rows), stop - start), np.float32)
        for column in range(start, stop):
            now = left[:, column]
            rounded = _round(now[:, None], scales, low, top)[:, 0]
            levels[:, order[column]] = rounded
            error = (now - rounded * scales.astype(np.float32)) / upper[column, column]
            left[:, column:stop] -= np.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return levels


def _five_levels(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(levels int8 in [-2, 2], scales float16 (rows,)); a zero row has scale 0."""
    size = np.abs(rows)
    mean = size.mean(1, keepdims=True, dtype=np.float64) if rows.shape[1] else np.zeros((len(rows), 1))
    levels = np.sign(rows) * ((size > 0.7 * mean).astype(np.float64) + (size > 1.4 * mean))
    energy = (levels**2).sum(1)
    scales = np.divide((rows * levels).sum(1), energy, out=np.zeros(len(rows)), where=energy > 0)
    return levels.astype(np.int8), _float16(scales)


def _round(rows: np.ndarray, scales: np.ndarray, low: int, top: int) -> np.ndarray:
    """Nearest level, half to even, float32 (rows, columns); 0 where the scale is 0."""
    steps = scales.astype(np.float32)[:, None]
    levels: np.ndarray = np.rint(np.divide(rows, steps, out=np.zeros_like(rows), where=steps > 0)).clip(low, top)
    return levels


def _mean_error(rows: np.ndarray, levels: np.ndarray, scales: np.ndarray) -> float:
    return float(((rows - levels * scales.astype(np.float32)[:, None]) ** 2).mean(dtype=np.float32))


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


def _rows(weights: np.ndarray) -> np.ndarray:
    """float32 (rows, columns); a vector or scalar is one row."""
    rows = len(weights) if weights.ndim > 1 else 1
    return finite_cast(weights, np.float32).reshape(rows, weights.size // max(rows, 1))


def _stored(scales: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return scales if weights.ndim > 1 else scales.astype(np.float32)


def _float16(scales: np.ndarray) -> np.ndarray:
    if scales.max(initial=0) > 65504:
        raise InputError(
            f"a row needs the scale {scales.max():.3g}, float16 ends at 65504", hint="treat this tensor as float32"
        )
    return scales.astype(np.float16)


def _quantile(rows: np.ndarray, fraction: float) -> np.ndarray:
    """Linear-interpolated quantile of each row, float32 throughout."""
    if not rows.size:
        return np.zeros(len(rows), np.float32)
    ordered = np.sort(rows, 1)
    rank = np.float32(fraction) * np.float32(rows.shape[1] - 1)
    low = int(rank)
    weight = np.float32(rank - np.float32(low))
    below: np.ndarray = ordered[:, low]
    above: np.ndarray = ordered[:, min(low + 1, rows.shape[1] - 1)]
    step = above - below
    # The form of a linear interpolation that is exact at the nearer end.
    found: np.ndarray = below + weight * step if weight < 0.5 else above - step * (np.float32(1) - weight)
    return found
