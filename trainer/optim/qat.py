"""Training through the rounding of a codec recipe: forward passes see the weights that unpacking would give back.

The formulas are the quantizers' own, evaluated in torch so that weights stay on their device; tests hold the results
equal to numpy's bit by bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.errors import UsageError
from codec.quantization.quantizers import FormulaQuantizer, Rows
from codec.quantization.recipe import Recipe, Rule


class TorchOps:
    """`ArrayOps` of codec.quantization.array_ops."""

    xp: Any = torch

    def float16(self, steps: Tensor) -> Tensor:
        # torch rounds float64 to float32 on the way: rounded to odd there, nothing is rounded twice.
        if steps.dtype == torch.float64:
            near = steps.float()
            inward = torch.where(near.abs() > steps.abs(), near.nextafter(torch.zeros_like(near)), near)
            odd = (inward.view(torch.int32) | (inward != steps)).view(torch.float32)
            steps = torch.where(near == steps, near, odd)
        return steps.half().float()

    def ranked(self, rows: Tensor, ranks: Sequence[int]) -> Tensor:
        # Quantiles near 1 lie among the largest few, which are found faster than all are sorted.
        largest = rows.topk(rows.shape[1] - min(ranks)).values
        return largest[:, [rows.shape[1] - 1 - rank for rank in ranks]]

    def lookup(self, table: np.ndarray, index: Tensor) -> Tensor:
        return torch.from_numpy(table).to(index.device)[index.long()]


TORCH = TorchOps()


@contextmanager
def fake_quantized(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Inside, the parameters that the recipe quantizes hold their rounded values; afterwards the float ones again.

    Forward and backward both belong inside: the gradient at the rounded weights is the one that the float weights are
    then moved by (straight-through).  A backward pass after the end is refused by torch, as the weights have changed.
    The parameters stay the same objects, so names, optimizers, saved states and compiled graphs do not notice.
    GPTQ rules round to nearest with their step; float16 and float32 rules change nothing.

    Raises: UsageError for a tensor without a rule, or with a quantizer that has no formula.
    """
    chosen: list[tuple[Tensor, FormulaQuantizer]] = []
    for name, weight in model.named_parameters():
        quantizer = _formula(recipe.rule(name, weight.numel()), f"recipe {recipe.name}, tensor `{name}`")
        if quantizer:
            chosen.append((weight.detach(), quantizer))
    floats = [weight.clone() for weight, _ in chosen]
    try:
        for held, quantizer in chosen:
            held.copy_(rounded(held, quantizer))
        yield
    finally:
        for (held, _), original in zip(chosen, floats, strict=True):
            held.copy_(original)


@torch.no_grad()
def rounded(weights: Tensor, quantizer: FormulaQuantizer) -> Tensor:
    """The weights quantized and dequantized, float32, same shape; anything below a matrix is one row."""
    vector = weights.ndim < 2
    values = weights.float().reshape(1, -1) if vector else weights.float().flatten(1)
    levels, grid = quantizer.round(Rows(values=values, ops=TORCH, vector=vector))
    found: Tensor = grid.values(levels, TORCH)
    return found.view_as(weights)


def _formula(rule: Rule, where: str) -> FormulaQuantizer | None:
    if rule.quantizer is None or isinstance(rule.quantizer, FormulaQuantizer):
        return rule.quantizer
    raise UsageError(
        f"training cannot round with treatment `{rule.treatment}`, which has no formula",
        where=where,
        hint="train with a recipe like pr339",
    )
