"""A recipe with one knob for the whole model, turned until the artifact lands at or just under its limit."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from codec.allocation.curve import Point
from codec.allocation.damage import added_nats, squared_error
from codec.allocation.plan import Choice, FittedRecipe, cannot_fit
from codec.decoder import QuantizedTensor
from codec.encoder import Tensor, encode
from codec.measurement.byte_ledger import ledger
from codec.progress import Progress, silent
from codec.quantization.coarsening import coarsened
from codec.quantization.quantizers import JointQuantizer
from codec.quantization.recipe import Recipe, Rule, quantize_checkpoint
from codec.storage.calibration_file import Layers

TRIES = 9  # 4 or 5 are usual
CLOSE = 10_000  # the part of the limit that may be left over
LEAST = 16  # bytes: no artifact is worth more tries than to come so near
WIDEST, FINEST = 8.0, -12.0  # octaves of the recipe's own steps
FINE = 2.0**-20  # octaves: 36 M weights at 4 bits move by 4 bytes


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
) -> FittedRecipe:
    """The recipe whose joint quantizers have steps so many octaves wider or finer that the artifact has `limit` bytes.

    See `fit_recipe`.  By regula falsi over octaves, from a slope of one bit per weight and octave at first.
    """
    name = f"{recipe.name}-fit"
    free = sum(tensors[name].size for names in recipe.joint_tensors(tensors).values() for name in names)
    weights = max(sum(each.size for each in tensors.values()), 1)

    def trial(octaves: float, number: int) -> _Trial:
        rules = tuple(_moved(rule, octaves) for rule in recipe.rules)
        own = dataclasses.replace(recipe, name=name, rules=rules)
        told = partial(_tell, progress, number, weights)
        treated = quantize_checkpoint(tensors, own, layers, told)
        return _Trial(octaves=octaves, recipe=own, treated=treated, blob=encode(treated, {**meta, "recipe": name}))

    start = at = trial(0.0, 0)
    over: tuple[float, int] | None = None
    under: tuple[float, int] | None = None
    best = None
    room = max(limit // CLOSE, LEAST)
    slope, predicted = free / 8, float(len(start.blob))
    for number in range(1, TRIES + 1):
        size = len(at.blob)
        if size > limit:
            over = max(over or (at.octaves, size), (at.octaves, size))
        else:
            under = min(under or (at.octaves, size), (at.octaves, size))
            best = at if best is None or size > len(best.blob) else best
            if limit - size <= room:
                break
        aim = limit - room / 2
        if over and under:
            part = (over[1] - aim) / (over[1] - under[1]) if number % 4 else 0.5  # regula falsi may stick to one end
            octaves = over[0] + (under[0] - over[0]) * part
        else:
            octaves = at.octaves + (size - aim) / slope * (1.0 if number < 3 else 2.0)
        octaves = min(max(round(octaves / FINE) * FINE, FINEST), WIDEST)
        if octaves == at.octaves or (over and under and not over[0] < octaves < under[0]):
            break  # at an end, or nothing between what was tried
        before = at
        at = trial(octaves, number)
        if before.octaves != octaves:
            predicted = aim
            measured = (len(before.blob) - len(at.blob)) / (octaves - before.octaves)
            slope = min(max(measured, slope / 8), slope * 2)
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
    progress(number, f"try {number + 1}, {100 * done // weights} %, {note}")


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
