"""How much a fit may have to do, for a bar around it."""

from collections.abc import Mapping

import numpy as np

from codec.allocation.fit import STAGES, UNITS
from codec.allocation.landing import TRIES
from codec.quantization.recipe import Recipe
from codec.work import quantizing


def fit_stages(recipe: Recipe, tensors: Mapping[str, np.ndarray]) -> int:
    """The most that `fit_recipe` reports to its progress."""
    return UNITS * (TRIES + 1) if recipe.joint_tensors(tensors) else STAGES


def fitting(recipe: Recipe, tensors: Mapping[str, np.ndarray]) -> float:
    """What that costs, in weights that are encoded."""
    once = quantizing(recipe, tensors) + sum(each.size for each in tensors.values())
    return once * fit_stages(recipe, tensors) / UNITS
