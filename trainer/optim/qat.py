"""Training through the rounding of a codec recipe: forward passes see the weights that unpacking would give back.

The formulas are those of codec.quantization.quantizers, in torch so that weights stay on their device; tests hold the
two equal bit by bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from codec.errors import UsageError
from codec.quantization.quantizers import INT8_QUANTILE, SMALLEST_SCALE, RowQuantizer
from codec.quantization.recipe import Recipe, Rule

STEPS = ("absmax", "floor", "std", "power")  # the others look at the error of the whole matrix or at five classes


@contextmanager
def fake_quantized(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Inside, the parameters that the recipe quantizes hold their rounded values; afterwards the float ones again.

    Forward and backward both belong inside: the gradient at the rounded weights is the one that the float weights are
    then moved by (straight-through).  A backward pass after the end is refused by torch, as the weights have changed.
    The parameters stay the same objects, so names, optimizers, saved states and compiled graphs do not notice.
    GPTQ rules round to nearest with their step; float16 and float32 rules change nothing.

    Raises: UsageError for a tensor without a rule, or with a step that is searched for.
    """
    ruled = [(weight, recipe.rule(name, weight.numel()), name) for name, weight in model.named_parameters()]
    for _, rule, name in ruled:
        _refuse_searched(rule, f"recipe {recipe.name}, tensor `{name}`")
    chosen = [(weight.detach(), rule) for weight, rule, _ in ruled if rule.treatment not in ("float16", "float32")]
    floats = [weight.clone() for weight, _ in chosen]
    try:
        for weight, rule in chosen:
            weight.copy_(rounded(weight, rule))
        yield
    finally:
        for (weight, _), original in zip(chosen, floats, strict=True):
            weight.copy_(original)


@torch.no_grad()
def rounded(weights: Tensor, rule: Rule) -> Tensor:
    """The weights quantized and dequantized by the rule, float32, same shape; anything below a matrix is one row."""
    whole = weights.ndim < 2 or rule.treatment == "int8-tensor"
    rows = weights.float().reshape(1 if whole else len(weights), -1)
    quantizer = rule.quantizer()
    if quantizer is None:
        found = _by_peak(rows) if rule.treatment == "int8-tensor" else _clipped(rows, vector=weights.ndim < 2)
    else:
        found = _by_scale(rows, quantizer, vector=weights.ndim < 2)
    return found.view_as(weights)


def _refuse_searched(rule: Rule, where: str) -> None:
    quantizer = rule.quantizer()
    if quantizer and quantizer.step not in STEPS:
        raise UsageError(
            f"its step rule is `{quantizer.step}`, training can round with {', '.join(STEPS)}",
            where=where,
            hint="train with a recipe of such steps, like pr339",
        )


def _by_scale(rows: Tensor, quantizer: RowQuantizer, *, vector: bool) -> Tensor:
    low = -quantizer.top if quantizer.symmetric or quantizer.step in ("std", "power") else -quantizer.top - 1
    scales = _scales(rows, quantizer, vector).half().float()
    if quantizer.step == "absmax" and not (quantizer.symmetric or vector):
        scales = scales.clamp_min(float(SMALLEST_SCALE))
    return _nearest(rows, scales, low, quantizer.top) * scales


def _scales(rows: Tensor, quantizer: RowQuantizer, vector: bool) -> Tensor:
    """float32 (rows, 1), before they are rounded to float16."""
    peak = _peak(rows)
    # A tensor, because torch divides by a number on CUDA by multiplying with its reciprocal.
    top = torch.full_like(peak, quantizer.top)
    if quantizer.step == "power":
        return peak / (top + 1)
    if quantizer.step == "floor":
        return torch.where(peak > 0, peak / top, 1.0) if vector else torch.maximum(peak / top, 1 / top)
    if quantizer.step == "std":
        spread = rows.double().std(1, keepdim=True) if rows.shape[1] > 1 else torch.zeros_like(peak)
        steps = (float(np.float32(quantizer.k)) * spread.float() / top).clamp_min(1e-10)
        return torch.where(steps.half() > 0, steps, peak / top)
    return (peak / top).clamp_min(1e-12)


def _by_peak(row: Tensor) -> Tensor:
    peak = _peak(row)
    scale = peak / torch.full_like(peak, 127)
    return _nearest(row, scale, -127, 127) * scale


def _clipped(rows: Tensor, *, vector: bool) -> Tensor:
    """int8 of pull request 162: divided by the float32 scale, given back with the stored one."""
    clip = _quantile(rows.abs(), INT8_QUANTILE)
    scales = clip / torch.full_like(clip, 127)
    scales = torch.where(scales > 0, scales, 1.0) if vector else scales.clamp_min(float(np.float32(1 / 127)))
    levels = _nearest(rows.clamp(-clip, clip), scales, -127, 127)
    return levels * (scales if vector else scales.half().float())


def _nearest(rows: Tensor, scales: Tensor, low: int, top: int) -> Tensor:
    """Levels as float32, half to even; 0 where the scale is 0."""
    return torch.where(scales > 0, (rows / scales).round(), 0.0).clamp(low, top)


def _peak(rows: Tensor) -> Tensor:
    return rows.abs().amax(1, keepdim=True)


def _quantile(rows: Tensor, fraction: float) -> Tensor:
    """Linear-interpolated quantile of each row, float32 (rows, 1); near 1 it lies among the largest few."""
    rank = np.float32(fraction) * np.float32(rows.shape[1] - 1)
    largest = rows.topk(rows.shape[1] - int(rank)).values
    below, above = largest[:, -1:], largest[:, -2:-1] if largest.shape[1] > 1 else largest
    weight = np.float32(rank - np.float32(int(rank)))
    # The form of a linear interpolation that is exact at the nearer end.
    if weight < 0.5:
        return below + float(weight) * (above - below)
    return above - (above - below) * float(np.float32(1) - weight)
