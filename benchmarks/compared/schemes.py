"""What bench_rd.py races, as data: each scheme turns tensors into others and bytes, its steps `octaves` wider.

Every scheme has one knob, so that a curve is a sweep of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.compared.peers import nncodec_points
from codec.decoder import QuantizedTensor
from codec.encoder import Tensor, encode
from codec.entropy.models import ENTROPY_MODELS
from codec.measurement.compressors import baseline_bytes
from codec.quantization.coarsening import coarsened, finest
from codec.quantization.gptq import factorize
from codec.quantization.quantizers import JointQuantizer
from codec.quantization.rate_distortion.quantizer import FEWEST, RateDistortion
from codec.quantization.recipe import Recipe, Rule, quantize_checkpoint
from codec.quantization.recipe_files import load_recipe
from codec.storage.calibration_file import Layers

UNBOUND = 1e9  # noise over signal: no bound
NNCODEC_STEP = -16  # quantizer parameter at 0 octaves; the step is 2**(parameter / 4)
MINILM_1716 = Rule.of(treatment="int8", step="std", k=12.85 * 127 / 31, gptq=True)  # unclipped


@dataclass(frozen=True, kw_only=True)
class Packed:
    """weights: float32 by name, as they come out.  treated: what was encoded, where our format holds it."""

    weights: dict[str, np.ndarray]
    bytes: int
    treated: dict[str, Tensor] | None = None


Scheme = Callable[[Mapping[str, np.ndarray], Layers, float], Packed]


def dequantized(tensor: Tensor) -> np.ndarray:
    """float32."""
    return tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor.astype(np.float32)


def joint(
    tensors: Mapping[str, np.ndarray],
    layers: Layers,
    octaves: float,
    quantizer: RateDistortion,
    seen: Callable[[Layers, Mapping[str, np.ndarray]], Layers] = lambda layers, _: layers,
    rescaled: bool = False,
) -> Packed:
    """One of ours.  seen: the calibration as the quantizer is to see it.  rescaled: see `lmmse`."""
    treated = dict(quantizer.coarsened(octaves).quantize_all(tensors, seen(layers, tensors)))
    weights = {name: dequantized(tensor) for name, tensor in treated.items()}
    if rescaled:
        weights = lmmse(tensors, weights, layers)
    return Packed(weights=weights, bytes=len(encode(treated, {})), treated=treated)


def recipe(
    tensors: Mapping[str, np.ndarray], layers: Layers, octaves: float, rules: Recipe, coder: str | None = None
) -> Packed:
    """coder: the peer that stores levels and scales; None for our artifact.  Finer than int8 there is nothing."""
    own = tuple(_moved(rule, octaves) for rule in rules.rules)
    treated = quantize_checkpoint(tensors, dataclasses.replace(rules, rules=own), layers)
    size = baseline_bytes(coder, treated) if coder else len(encode(treated, {}))
    return Packed(
        weights={name: dequantized(tensor) for name, tensor in treated.items()}, bytes=size, treated=dict(treated)
    )


def nncodec(tensors: Mapping[str, np.ndarray], layers: Layers, octaves: float) -> Packed:
    """Dependent quantization; it takes no calibration.  Raises: EnvironmentLacks where it is not installed."""
    point = next(nncodec_points(tensors, [NNCODEC_STEP + round(4 * octaves)]))
    return Packed(weights=point.tensors, bytes=point.bytes)


def best() -> RateDistortion:
    """The quantizer of recipe `best`."""
    (rule,) = load_recipe("best").rules
    assert isinstance(rule.quantizer, RateDistortion)
    return rule.quantizer


def schemes(whole: bool, encoder: bool = False) -> dict[str, Scheme]:
    """whole: recipes as they are, for files; else no matrix is passed through as float.

    encoder: for tensors whose names no recipe knows; then each recipe is its rule for attention or MLP matrices.
    """
    found: dict[str, Scheme] = {
        "best": partial(joint, quantizer=best()),
        "watersic": partial(joint, quantizer=watersic(), seen=equal_rates, rescaled=True),
    }
    for name in ("pr162", "pr339-int5mlp", "pr1716"):
        own = load_recipe(name)
        if encoder:
            own = dataclasses.replace(own, rules=(ENCODER_RULES[name],))
        elif not whole:
            own = dataclasses.replace(own, rules=tuple(rule for rule in own.rules if rule.quantizer))
        found[name] = partial(recipe, rules=own, coder=own.coder)
        if name == "pr1716":
            found["pr1716, our rANS"] = partial(recipe, rules=own)
    return found | {"nncodec": nncodec}


ENCODER_RULES = {
    "pr162": Rule.of(treatment="int6"),
    "pr339-int5mlp": Rule.of(treatment="int6", step="floor"),
    "pr1716": MINILM_1716,
}


def ablation() -> dict[str, Scheme]:
    """From a scalar step per row to `best`: in sequence, each alone, each left out."""
    own, plain = best(), scalar()

    def changed(quantizer: RateDistortion, **fields: Any) -> RateDistortion:
        return dataclasses.replace(quantizer, **fields)

    flat = changed(own, states=1, rate_weight=0.0, row_exponent=0.0, row_noise=UNBOUND, token_noise=UNBOUND)
    rows = changed(own, rate_weight=0.0)
    bounded = {"row_noise": own.row_noise, "token_noise": own.token_noise}
    even = partial(joint, seen=equal_rates)
    return {
        "0 scalar, steps by the rows' spread": partial(even, quantizer=plain),
        "1 + columns": partial(even, quantizer=changed(plain, column_exponent=1.0)),
        "2 + importance of tensors": partial(joint, quantizer=flat),
        "3 + importance of rows, bounded noise": partial(joint, quantizer=changed(rows, states=1)),
        "4 + trellis, 8 states": partial(joint, quantizer=changed(rows, states=8)),
        f"5 + trellis, {own.states} states": partial(joint, quantizer=rows),
        "6 + rate-aware (best)": partial(joint, quantizer=own),
        "0 alone: columns": partial(even, quantizer=changed(plain, column_exponent=1.0)),
        "0 alone: importance of tensors": partial(joint, quantizer=plain, seen=tensors_alone),
        "0 alone: importance of rows, bounded noise": partial(
            joint, quantizer=changed(plain, **bounded), seen=rows_alone
        ),
        "0 alone: trellis, 8 states": partial(even, quantizer=changed(plain, states=8)),
        f"0 alone: trellis, {own.states} states": partial(even, quantizer=changed(plain, states=own.states)),
        "0 alone: rate-aware": partial(even, quantizer=changed(plain, rate_weight=own.rate_weight)),
        "best without columns": partial(joint, quantizer=changed(own, column_exponent=0.0)),
        "best without importance of tensors": partial(joint, quantizer=own, seen=rows_alone),
        "best without importance of rows": partial(joint, quantizer=changed(own, row_exponent=0.0)),
        "best without bounded noise": partial(joint, quantizer=changed(own, row_noise=UNBOUND, token_noise=UNBOUND)),
        "best with 8 states": partial(joint, quantizer=changed(own, states=8)),
        "best without trellis": partial(joint, quantizer=changed(own, states=1)),
        "best without rate-aware decisions": partial(joint, quantizer=changed(own, rate_weight=0.0)),
        "best without feedback (GPTQ)": partial(joint, quantizer=changed(own, gptq=False)),
        "best without settled classes": without_model("settled classes", partial(joint, quantizer=own)),
    }


def without_model(name: str, scheme: Scheme) -> Scheme:
    """The scheme with one entropy model fewer to choose from."""

    def packed(tensors: Mapping[str, np.ndarray], layers: Layers, octaves: float) -> Packed:
        model = ENTROPY_MODELS.pop(name)
        try:
            return scheme(tensors, layers, octaves)
        finally:
            ENTROPY_MODELS[name] = model

    return packed


def watersic() -> RateDistortion:
    """Column steps, a uniform quantizer that looks at the error alone, no bounds on rows."""
    return dataclasses.replace(best(), states=1, rate_weight=0.0, row_noise=UNBOUND, token_noise=UNBOUND)


def scalar() -> RateDistortion:
    """The same without column steps: with `equal_rates` a step in proportion to the row's spread."""
    return dataclasses.replace(watersic(), column_exponent=0.0)


def equal_rates(layers: Layers, tensors: Mapping[str, np.ndarray]) -> Layers:
    """As if a row mattered by the inverse of its energy: then every row of a model gets the same bits per weight.

    The Cholesky diagonals' geometric mean is divided out, by which importance would move the rate.
    """
    every = sum(array.size for array in tensors.values())
    found = {}
    for name in multiplied(layers, tensors):
        energy = np.square(tensors[name], dtype=np.float64).mean(1)
        known = layers.hessians[name].astype(np.float64)
        unit = float(np.trace(known)) / len(known) or 1.0
        diagonal = np.diag(factorize(known / unit, len(known)).upper).astype(np.float64)
        middle = np.exp(np.log(diagonal).mean())
        scale = unit / float(layers.batch_tokens or 1)
        found[name] = middle**2 / (every * scale * np.maximum(energy, energy.mean() * 1e-6 + 1e-30))
    hessians = {name: layers.hessians[name] for name in found}
    return Layers(hessians=hessians, sensitivities=found, batch_tokens=layers.batch_tokens)


def rows_alone(layers: Layers, tensors: Mapping[str, np.ndarray]) -> Layers:
    """Rows by their importance relative to their tensor's, tensors as in `equal_rates`."""
    flat = equal_rates(layers, tensors)
    found = {}
    for name, even in flat.sensitivities.items():
        rows = np.sum([each for each, _ in layers.terms(name)], 0)
        rows = np.maximum(rows, rows.mean() * 1e-6 + 1e-300)
        found[name] = rows * np.exp(np.log(even).mean() - np.log(rows).mean())
    return dataclasses.replace(flat, sensitivities=found)


def tensors_alone(layers: Layers, tensors: Mapping[str, np.ndarray]) -> Layers:
    """Tensors by their importance, rows by their energy."""
    flat = equal_rates(layers, tensors)
    found = {}
    for name, even in flat.sensitivities.items():
        moments = layers.hessians[name]
        weight = sum(float(rows.mean() * np.trace(known)) for rows, known in layers.terms(name))
        total = weight * float(layers.batch_tokens or 1) / max(float(np.trace(moments)), 1e-300)
        found[name] = even / even.mean() * total
    return dataclasses.replace(flat, sensitivities=found)


def lmmse(
    tensors: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], layers: Layers
) -> dict[str, np.ndarray]:
    """Every row times the factor that leaves the least Hessian-weighted error.  Factors are not counted as bytes."""
    found = dict(weights)
    for name in multiplied(layers, tensors):
        exact, rounded = tensors[name].astype(np.float64), weights[name].astype(np.float64)
        moved = rounded @ layers.hessians[name].astype(np.float64)
        energy = np.einsum("ij,ij->i", moved, rounded)
        factors = np.where(energy > 0, np.einsum("ij,ij->i", moved, exact) / np.where(energy > 0, energy, 1), 1.0)
        found[name] = (rounded * factors[:, None]).astype(np.float32)
    return found


def multiplied(layers: Layers, tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Matrices above 2,048 weights that have a Hessian: what is counted in bits per quantized weight."""
    return sorted(name for name in layers.hessians if name in tensors and tensors[name].size > FEWEST)


def _moved(rule: Rule, octaves: float) -> Rule:
    if rule.quantizer is None or isinstance(rule.quantizer, JointQuantizer):
        return rule
    return coarsened(rule, max(octaves, finest(rule)))
