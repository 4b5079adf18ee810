"""A recipe whose steps are fitted to a byte limit: the least damage that lands at or just under it.

Each quantized matrix has one free number, its step in octaves of the recipe's.  What a step costs and loses is measured
by quantizing and encoding the whole checkpoint, never by a formula alone: a few rounds at half octaves, then the plan
itself, then all its steps moved together until the artifact is where it should be.

Without calibration the recipe's own steps say how much the tensors matter: an error counts in units of the rounding
noise that the recipe gave the tensor, so that at fine steps all become coarser by the same factor.  With it an error
counts in predicted nats.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from codec.allocation.curve import COARSEST, Curve, Point, choose
from codec.allocation.damage import added_nats, rounding_noise, squared_error
from codec.allocation.landing import LEAST, TRIES, landed
from codec.allocation.one_knob import Artifact, fit_knob
from codec.allocation.plan import Choice, FittedRecipe, cannot_fit, escaped
from codec.decoder import QuantizedTensor
from codec.encoder import Tensor, encode
from codec.measurement.byte_ledger import ByteLedger, ledger
from codec.progress import Progress, silent
from codec.quantization.array_ops import LARGEST_FLOAT16
from codec.quantization.coarsening import Coarsened, coarsened, finest
from codec.quantization.recipe import Recipe, Rule, quantize_checkpoint
from codec.storage.calibration_file import Layers

FEWEST = 2048  # weights: a smaller tensor is kept as the recipe has it, as `pr162-small` keeps it float16
RUNGS = 2  # measured steps per octave
ROUNDS = 12  # of measuring; 4 are usual
UNITS = 100  # of progress, for each of these and a first one
STAGES = UNITS * (ROUNDS + TRIES + 1)
NUDGE = 0.5  # octaves: how far all steps are moved together, before a plan counts as failed
PLANS, MISSED = 3, 1000  # plans that are tried; one that misses by more than this part of the limit is made again


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unit:
    """A tensor with a step to choose, and those equal to it, which the artifact stores once."""

    names: tuple[str, ...]
    rule: Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What is fitted.  encode: the treated tensors to artifact bytes."""

    tensors: Mapping[str, np.ndarray]
    recipe: Recipe
    layers: Layers | None
    units: tuple[_Unit, ...]
    encode: Callable[[Mapping[str, Tensor]], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """The checkpoint at some steps.  octaves: of each unit."""

    octaves: tuple[float, ...]
    treated: dict[str, Tensor]
    blob: bytes


def fit_recipe(
    tensors: Mapping[str, np.ndarray],
    recipe: Recipe,
    limit: int,
    meta: Mapping[str, Any],
    layers: Layers | None = None,
    progress: Progress = silent,
    artifact: Artifact = encode,
) -> FittedRecipe:
    """The recipe with the steps that land an artifact at or just under `limit` bytes, with the least damage.

    tensors: the checkpoint.  meta: what the artifact holds beside it, without the recipe's name.  layers: calibration,
    for GPTQ and for damage in nats.  progress: told how many of STAGES are done, most of which are rarely needed.
    artifact: makes the bytes that are counted.
    A pure function; the same steps are found again from equal input.

    Raises: LimitError when the coarsest steps (6 dB of every matrix) are over the limit; as `quantize_checkpoint`.
    """
    if recipe.joint_tensors(tensors):
        return fit_knob(tensors, recipe, limit, meta, layers, progress, artifact)
    name = f"{recipe.name}-fit"
    progress(0, f"recipe {recipe.name}")
    treated = quantize_checkpoint(tensors, recipe, layers)
    units = _units(tensors, treated, recipe, layers)
    case = _Case(
        tensors=tensors,
        recipe=recipe,
        layers=layers,
        units=units,
        encode=lambda treated: artifact(treated, {**meta, "recipe": name}),
    )
    start = _Trial(octaves=(0.0,) * len(units), treated=treated, blob=case.encode(treated))
    costs = ledger(start.blob)
    if not units:
        if len(start.blob) > limit:
            raise cannot_fit(costs, limit)
        return _fitted(case, start, start, limit, None)
    curves, overhead = _first_curves(case, start, costs)
    curves, overhead, plan = _planned(case, start, curves, overhead, limit, progress)
    ends = [(float(each.candidates()[0]), each.end()) for each in curves]
    best = _landed(case, plan, ends, limit, progress)
    if best is None:
        best = _at(case, plan, [coarsest for _, coarsest in ends])
        if len(best.blob) > limit:
            raise cannot_fit(ledger(best.blob), limit)
    predicted = overhead + sum(float(each.bytes(np.array(at))) for each, at in zip(curves, best.octaves, strict=True))
    return _fitted(case, start, best, limit, predicted)


def _units(
    tensors: Mapping[str, np.ndarray], treated: Mapping[str, Tensor], recipe: Recipe, layers: Layers | None
) -> tuple[_Unit, ...]:
    """Matrices of more than FEWEST weights with a step for every row, which their quantizer can multiply."""
    groups: dict[tuple[bytes, int, str], list[str]] = {}
    for name in sorted(tensors):
        weights, now = tensors[name], treated[name]
        if not isinstance(now, QuantizedTensor) or now.scales.dtype != np.float16 or weights.size <= FEWEST:
            continue
        rule = recipe.rule(name, weights.size)
        if not isinstance(rule.quantizer, Coarsened) or not rounding_noise(now) or not weights.any():
            continue
        content = hashlib.sha256(f"{weights.dtype}{weights.shape}".encode() + np.ascontiguousarray(weights).tobytes())
        own = name if layers and name in layers.hessians else ""
        groups.setdefault((content.digest(), id(rule), own), []).append(name)
    return tuple(
        _Unit(names=tuple(names), rule=recipe.rule(names[0], tensors[names[0]].size)) for names in groups.values()
    )


def _at(
    case: _Case, before: _Trial, octaves: Sequence[float], tell: Callable[[str], None] = lambda note: None
) -> _Trial:
    """The checkpoint at other steps; what has not moved is not quantized again."""
    treated = dict(before.treated)
    for unit, now, then in zip(case.units, octaves, before.octaves, strict=True):
        if now != then:
            tell(unit.names[0])
            rule = dataclasses.replace(coarsened(unit.rule, now), names=("*",), max_weights=None)
            own = dataclasses.replace(case.recipe, rules=(rule,), strict=frozenset())
            part = {name: case.tensors[name] for name in unit.names}
            treated |= quantize_checkpoint(part, own, case.layers)
    tell("encode")
    return _Trial(octaves=tuple(octaves), treated=treated, blob=case.encode(treated))


def _point(case: _Case, unit: _Unit, trial: _Trial, octaves: float, costs: Mapping[str, float]) -> Point:
    """Of a unit as it is in a trial.  costs: bytes by name."""
    name = unit.names[0]
    now = trial.treated[name]
    assert isinstance(now, QuantizedTensor)
    nats = [added_nats(each, case.tensors[each], now, case.layers) for each in unit.names]
    known = [each for each in nats if each is not None]
    return Point(
        octaves=octaves,
        bytes=sum(costs[each] for each in unit.names),
        error=squared_error(case.tensors[name], now),
        nats=sum(known) if known else None,
    )


def _first_curves(case: _Case, start: _Trial, costs: ByteLedger) -> tuple[list[Curve], float]:
    """One point each, the recipe's own step; the bytes of everything else."""
    by_name = {row.name: row.bytes for row in costs.rows}
    curves = []
    for unit in case.units:
        weights, now = case.tensors[unit.names[0]], start.treated[unit.names[0]]
        assert isinstance(now, QuantizedTensor)
        curves.append(
            Curve(
                points=(_point(case, unit, start, 0.0, by_name),),
                weights=weights.size,
                energy=float(f"{np.square(weights, dtype=np.float64).sum():.9g}"),
                finest=finest(unit.rule),
                coarsest=min(COARSEST, math.log2(LARGEST_FLOAT16 / float(now.scales.max())) - 1 / RUNGS),
                price=1 / rounding_noise(now),
            )
        )
    known = [curve for curve in curves if curve.points[0].nats is not None]
    # A tensor that was not calibrated counts as if the recipe spent on each of its weights the average nats: a guess.
    average = sum(curve.points[0].nats or 0.0 for curve in known) / max(sum(curve.weights for curve in known), 1)
    if known and average > 0:
        curves = [dataclasses.replace(curve, price=curve.price * average) for curve in curves]
    return curves, len(start.blob) - sum(curve.points[0].bytes for curve in curves)


def _planned(
    case: _Case, trial: _Trial, curves: list[Curve], overhead: float, limit: int, progress: Progress
) -> tuple[list[Curve], float, _Trial]:
    """Measure until the plan rests on measured neighbours and its own size is about right.

    -> curves as they were when the plan was made, the bytes of everything else, the checkpoint at the plan.
    """
    plans = 0
    for done in range(1, ROUNDS + 1):
        octaves = choose(curves, limit - overhead)
        rungs = [_next_rung(curve, at) for curve, at in zip(curves, octaves, strict=True)]
        planned = done == ROUNDS or not any(each is not None for each in rungs)
        if not planned:
            octaves = [at if rung is None else rung for rung, at in zip(rungs, trial.octaves, strict=True)]
        trial = _at(case, trial, octaves, partial(_tell, progress, done))
        ends = [tuple(curve.candidates()[[0, -1]]) for curve in curves]
        at_an_end = any(all(at == end[side] for at, end in zip(octaves, ends, strict=True)) for side in (0, 1))
        plans += planned
        near = at_an_end or abs(limit - len(trial.blob)) <= max(limit // MISSED, 4 * LEAST)
        if planned and (near or plans == PLANS or done == ROUNDS):
            break
        costs = {row.name: row.bytes for row in ledger(trial.blob).rows}
        moved = zip(curves, case.units, octaves, strict=True)
        curves = [curve.plus(_point(case, unit, trial, at, costs)) for curve, unit, at in moved]
        overhead = len(trial.blob) - sum(costs[name] for unit in case.units for name in unit.names)
    return curves, overhead, trial


def _tell(progress: Progress, done: int, tensor: str) -> None:
    progress(UNITS * done, f"round {done}, {tensor}")


def _next_rung(curve: Curve, octaves: float) -> float | None:
    """The nearer neighbour of a step on the ladder of half octaves that was not measured yet."""
    below = math.floor(octaves * RUNGS) / RUNGS
    neighbours = {max(below, curve.finest), max(below + 1 / RUNGS, curve.finest)}
    missing = neighbours - {each.octaves for each in curve.points}
    if octaves in {each.octaves for each in curve.points} or not missing:
        return None
    return min(missing, key=lambda each: (abs(each - octaves), each))


def _landed(
    case: _Case, plan: _Trial, ends: Sequence[tuple[float, float]], limit: int, progress: Progress
) -> _Trial | None:
    """All steps of a plan moved together until the artifact is just under the limit; None where that is too far.

    ends: finest and coarsest step of each.
    """
    trial = plan

    def move(shift: float, number: int) -> _Trial | None:
        nonlocal trial
        octaves = tuple(min(max(at + shift, low), high) for at, (low, high) in zip(plan.octaves, ends, strict=True))
        if octaves == trial.octaves:
            return None
        progress(UNITS * (ROUNDS + number), f"landing, {len(trial.blob):,} of {limit:,} bytes")
        trial = _at(case, trial, octaves)
        return trial

    weights = sum(case.tensors[unit.names[0]].size for unit in case.units)
    return landed(plan, limit, weights, move, -NUDGE, NUDGE)[0]


def _fitted(case: _Case, start: _Trial, best: _Trial, limit: int, predicted: float | None) -> FittedRecipe:
    rules: dict[tuple[str, Any], list[str]] = {}
    units = {name: place for place, unit in enumerate(case.units) for name in unit.names}
    for name in sorted(case.tensors):
        if case.tensors[name].dtype.kind == "f":
            rule = case.recipe.rule(name, case.tensors[name].size)
            if name in units:
                rule = coarsened(rule, best.octaves[units[name]])
            rules.setdefault((rule.treatment, rule.quantizer), []).append(name)
    before, after = ({row.name: row.bytes for row in ledger(each.blob).rows} for each in (start, best))
    choices = tuple(
        Choice(
            names=unit.names,
            rule=unit.rule,
            fitted=coarsened(unit.rule, octaves),
            octaves=octaves,
            weights=case.tensors[unit.names[0]].size,
            energy=float(np.square(case.tensors[unit.names[0]], dtype=np.float64).sum()),
            before=_point(case, unit, start, 0.0, before),
            after=_point(case, unit, best, octaves, after),
        )
        for unit, octaves in zip(case.units, best.octaves, strict=True)
    )
    return FittedRecipe(
        recipe=Recipe(
            name=f"{case.recipe.name}-fit",
            about=f"Recipe {case.recipe.name} with steps fitted to an artifact of {limit:,} bytes.",
            coder=case.recipe.coder,
            rules=tuple(
                Rule(treatment=treatment, quantizer=quantizer, names=tuple(map(escaped, names)))
                for (treatment, quantizer), names in rules.items()
            ),
        ),
        treated=best.treated,
        limit=limit,
        recipe_bytes=len(start.blob),
        predicted_bytes=len(best.blob) if predicted is None else round(predicted),
        artifact_bytes=len(best.blob),
        choices=choices,
    )
