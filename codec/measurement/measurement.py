"""Bits per weight of a checkpoint under a recipe, next to the entropy and to the compressor the recipe came with."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor, unpack
from codec.encoder import encode
from codec.errors import CodecError
from codec.measurement.byte_ledger import ByteLedger, ledger
from codec.measurement.compressors import FALLBACK, baseline_bytes, installed, plain_bytes
from codec.progress import Progress, silent
from codec.quantization.recipe import Recipe, quantize_checkpoint
from codec.storage.calibration_file import Layers


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One checkpoint, one recipe.  snr_db: weight energy over squared error, of quantized and rounded tensors alike.

    treatments: what the recipe's rules say of each float tensor; empty for levels that were there already.
    peer_bytes: the whole checkpoint's levels, scales and column steps under each peer; tensor_peer_bytes: each tensor
    alone under the recipe's own coder.
    hessian_snr_db: the same ratio for the outputs, tr(W H W^T) over tr(E H E^T), as a mean over the quantized tensors
    that have a Hessian; None without any.
    """

    recipe: str
    treatments: dict[str, str]
    ledger: ByteLedger
    snr_db: float
    encode_seconds: float
    decode_seconds: float
    peer_bytes: dict[str, int]
    tensor_peer_bytes: dict[str, int]
    tensor_snr_db: dict[str, float]
    tensor_hessian_snr_db: dict[str, float]

    @property
    def hessian_snr_db(self) -> float | None:
        found = self.tensor_hessian_snr_db
        return sum(found.values()) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """The totals under the names of the command line's JSON."""
        return {
            "recipe": self.recipe,
            "bytes": self.ledger.artifact_bytes,
            "bits_per_weight": self.ledger.bits_per_weight,
            "entropy_bits_per_weight": self.ledger.entropy_bits / max(self.quantized_weights, 1),
            "overhead_percent": self.ledger.overhead_percent,
            "snr_db": self.snr_db,
            "hessian_snr_db": self.hessian_snr_db,
            "encode_seconds": self.encode_seconds,
            "decode_seconds": self.decode_seconds,
            "peer_bytes": self.peer_bytes,
            "level_bytes": self.ledger.level_bytes,
            "scale_bytes": self.ledger.scale_bytes,
            "column_step_bytes": self.ledger.column_step_bytes,
            "plain_bytes": self.ledger.plain_bytes,
            "header_bytes": self.ledger.header_bytes,
            "table_bytes": self.ledger.table_bytes,
            "lane_bytes": self.ledger.lane_bytes,
        }

    @property
    def quantized_weights(self) -> int:
        return sum(row.weights for row in self.ledger.rows if row.quantized)


def measure(
    tensors: Mapping[str, np.ndarray],
    recipe: Recipe,
    peers: Iterable[str] = (),
    layers: Layers | None = None,
    progress: Progress = silent,
) -> Measurement:
    """Quantize, encode, decode, compare, and count.  peers: names of BASELINES beside the recipe's own coder.

    Where the recipe's own coder is not installed, FALLBACK takes its place.

    layers, progress: see `quantize_checkpoint`.

    Raises: InputError for weights that cannot be quantized, CodecError if the round trip is not exact.
    """
    floats = {name: array.size for name, array in tensors.items() if array.dtype.kind == "f"}
    return measure_treated(
        quantize_checkpoint(tensors, recipe, layers, progress),
        recipe=recipe.name,
        treatments={name: recipe.rule(name, size).treatment for name, size in floats.items()},
        coder=recipe.coder if installed(recipe.coder) else FALLBACK,
        peers=peers,
        tensors=tensors,
        hessians=layers.hessians if layers else None,
    )


def measure_treated(
    treated: Mapping[str, QuantizedTensor | np.ndarray],
    *,
    recipe: str,
    treatments: Mapping[str, str] | None = None,
    coder: str = FALLBACK,
    peers: Iterable[str] = (),
    tensors: Mapping[str, np.ndarray] | None = None,
    hessians: Mapping[str, np.ndarray] | None = None,
) -> Measurement:
    """As `measure`, of tensors that are quantized already.  recipe: what to call it.

    tensors: the floats to compare with; without them nothing was lost, and no tensor has a ratio.  hessians: to weigh
    what was lost.

    Raises: CodecError if the round trip is not exact.
    """
    started = time.perf_counter()
    blob = encode(treated, {})
    encoded = time.perf_counter()
    _, back = unpack(blob)
    decoded = time.perf_counter()
    if plain_bytes(back) != plain_bytes(treated):
        raise CodecError("the artifact does not decode to the levels that were encoded", where=f"recipe {recipe}")
    noise = {name: _energy(each, treated[name]) for name, each in (tensors or {}).items() if each.dtype.kind == "f"}
    return Measurement(
        recipe=recipe,
        treatments=dict(treatments or {}),
        ledger=ledger(blob),
        snr_db=_decibel(sum(signal for signal, _ in noise.values()), sum(error for _, error in noise.values())),
        encode_seconds=encoded - started,
        decode_seconds=decoded - encoded,
        peer_bytes={peer: baseline_bytes(peer, treated) for peer in dict.fromkeys([coder, *peers])},
        tensor_peer_bytes={name: baseline_bytes(coder, {name: treated[name]}) for name in treated},
        tensor_snr_db={name: _decibel(*pair) for name, pair in noise.items()},
        tensor_hessian_snr_db={
            name: _decibel(*_output_energy(tensors[name], each, hessians[name]))
            for name, each in treated.items()
            if tensors and hessians and name in hessians and isinstance(each, QuantizedTensor)
        },
    )


def _energy(weights: np.ndarray, treated: QuantizedTensor | np.ndarray) -> tuple[float, float]:
    """(energy of the weights, energy of the error), float64 sums."""
    values = treated.dequantize() if isinstance(treated, QuantizedTensor) else treated
    exact = weights.astype(np.float64)
    return float((exact**2).sum()), float(((values.astype(np.float64) - exact) ** 2).sum())


def _output_energy(weights: np.ndarray, treated: QuantizedTensor, hessian: np.ndarray) -> tuple[float, float]:
    """(energy of the layer's outputs, energy of their error), float64 sums."""
    moments, exact = hessian.astype(np.float64), weights.astype(np.float64)
    error = treated.dequantize() - exact
    return float(((exact @ moments) * exact).sum()), float(((error @ moments) * error).sum())


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
