"""A recipe with one knob for the whole model, turned until the artifact lands at or just under its limit."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from codec.allocation.curve import Point
from codec.allocation.damage import added_nats, squared_error
from codec.allocation.landing import TRIES, landed
from codec.allocation.plan import Choice, FittedRecipe, cannot_fit
from codec.decoder import QuantizedTensor
from codec.encoder import Tensor, encode
from codec.measurement.byte_ledger import ledger
from codec.progress import Progress, silent
from codec.quantization.coarsening import coarsened
from codec.quantization.quantizers import JointQuantizer
from codec.quantization.recipe import Recipe, Rule, quantize_checkpoint
from codec.storage.calibration_file import Layers

Artifact = Callable[[Mapping[str, Tensor], Mapping[str, object]], bytes]  # `encode`, or what changes tensors before
WIDEST, FINEST = 8.0, -12.0  # octaves of the recipe's own steps


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    octaves: float
    recipe: Recipe
    treated: dict[str, Tensor]
    blob: bytes


def fit_knob(
    tensors: Mapping[str, np.ndarray],
    recipe: Recipe,
    limit: int,
    meta: Mapping[str, object],
    layers: Layers | None = None,
    progress: Progress = silent,
    artifact: Artifact = encode,
) -> FittedRecipe:
    """The recipe whose joint quantizers have steps so many octaves wider or finer that the artifact has `limit` bytes.

    See `fit_recipe` and `landed`.
    """
    name = f"{recipe.name}-fit"
    free = sum(tensors[name].size for names in recipe.joint_tensors(tensors).values() for name in names)
    weights = max(sum(each.size for each in tensors.values()), 1)

    def trial(octaves: float, number: int) -> _Trial:
        rules = tuple(_moved(rule, octaves) for rule in recipe.rules)
        own = dataclasses.replace(recipe, name=name, rules=rules)
        told = partial(_tell, progress, number, weights)
        treated = quantize_checkpoint(tensors, own, layers, told)
        return _Trial(octaves=octaves, recipe=own, treated=treated, blob=artifact(treated, {**meta, "recipe": name}))

    start = trial(0.0, 0)
    best, predicted = landed(start, limit, free, trial, FINEST, WIDEST)
    if best is None:
        best = trial(WIDEST, TRIES)
        if len(best.blob) > limit:
            raise cannot_fit(ledger(best.blob), limit, f"with steps {2**WIDEST:.0f} times the recipe's")
    return FittedRecipe(
        recipe=dataclasses.replace(
            best.recipe, about=f"Recipe {recipe.name} with its knob fitted to an artifact of {limit:,} bytes."
        ),
        treated=best.treated,
        limit=limit,
        recipe_bytes=len(start.blob),
        predicted_bytes=round(predicted),
        artifact_bytes=len(best.blob),
        choices=_choices(tensors, start, best, layers),
    )


def _moved(rule: Rule, octaves: float) -> Rule:
    return coarsened(rule, octaves) if isinstance(rule.quantizer, JointQuantizer) else rule


def _tell(progress: Progress, number: int, weights: int, done: int, note: str) -> None:
    progress(100 * number + 100 * done // weights, f"try {number + 1}, {note}")


def _choices(
    tensors: Mapping[str, np.ndarray], start: _Trial, best: _Trial, layers: Layers | None
) -> tuple[Choice, ...]:
    """Of every tensor that both trials quantize."""
    before, after = ({row.name: row.bytes for row in ledger(each.blob).rows} for each in (start, best))

    def point(name: str, trial: _Trial, costs: Mapping[str, float]) -> Point:
        treated = trial.treated[name]
        assert isinstance(treated, QuantizedTensor)
        nats = added_nats(name, tensors[name], treated, layers)
        return Point(octaves=trial.octaves, bytes=costs[name], error=squared_error(tensors[name], treated), nats=nats)

    names = [
        name
        for name in sorted(tensors)
        if all(isinstance(each.treated[name], QuantizedTensor) for each in (start, best))
    ]
    return tuple(
        Choice(
            names=(name,),
            rule=start.recipe.rule(name, tensors[name].size),
            fitted=best.recipe.rule(name, tensors[name].size),
            octaves=best.octaves,
            weights=tensors[name].size,
            energy=float(np.square(tensors[name], dtype=np.float64).sum()),
            before=point(name, start, before),
            after=point(name, best, after),
        )
        for name in names
    )
