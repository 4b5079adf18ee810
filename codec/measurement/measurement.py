"""Bits per weight of a checkpoint under a recipe, next to the entropy and to the compressor the recipe came with."""

import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor, unpack
from codec.encoder import encode
from codec.entropy.planes import coded_levels
from codec.errors import CodecError
from codec.html import Shown
from codec.measurement.byte_ledger import ByteLedger, copies, ledger
from codec.measurement.compressors import FALLBACK, SLOW, baseline_bytes, installed, plain_bytes, sampled_bytes
from codec.measurement.library_coder import LibraryBytes, library_bytes
from codec.measurement.losses import Loss, decibel, loss_notes, losses
from codec.progress import Progress, silent
from codec.quantization.recipe import Recipe, quantize_checkpoint
from codec.storage.calibration_file import Layers
from codec.work import DECODE, UNITS, Stages, quantizing

LARGE = 10_000_000  # weights; beyond, a slow coder of a recipe compresses a sample
SAMPLE = 1 << 21  # bytes; brotli-11 takes 10 us for each
STAGES, ALONE = UNITS, "one by one"  # what progress is told; the last of its stages
COMPRESS, LIBRARY = 10.0, 0.8  # what compressors and coders of constriction cost, beside encoding as many weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(Shown):
    """One checkpoint, one recipe.  snr_db: weight energy over squared error, of quantized and rounded tensors alike.

    losses: of each float tensor; empty where there are no floats to compare with.
    treatments: what the recipe's rules say of each float tensor; empty for levels that were there already.
    peer_bytes: the whole checkpoint's levels, scales and column steps under each peer; tensor_peer_bytes: each tensor
    alone under the recipe's own coder.  tensor_library_bytes: each quantized tensor under coders of constriction, to
    compare with the ledger's payload and classes.  sampled: peers whose bytes are estimated from a sample.
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
    tensor_library_bytes: dict[str, LibraryBytes]
    sampled: tuple[str, ...]
    losses: dict[str, Loss]
    tensor_hessian_snr_db: dict[str, float]

    @property
    def hessian_snr_db(self) -> float | None:
        found = self.tensor_hessian_snr_db
        return sum(found.values()) / len(found) if found else None

    @property
    def tensor_snr_db(self) -> dict[str, float]:
        return {name: loss.snr_db for name, loss in self.losses.items()}

    @property
    def mean_snr_db(self) -> float | None:
        """As a mean over the weights of tensors with an error: small tensors with little energy count by their size."""
        sizes = {row.name: row.weights for row in self.ledger.rows}
        found = [(sizes[loss.name], loss.snr_db) for loss in self.losses.values() if math.isfinite(loss.snr_db)]
        weights = sum(size for size, _ in found)
        return sum(size * ratio for size, ratio in found) / weights if weights else None

    @property
    def worst(self) -> Loss | None:
        """The tensor of the lowest ratio, of those with an error."""
        found = [loss for loss in self.losses.values() if math.isfinite(loss.snr_db)]
        return min(found, key=lambda loss: (loss.snr_db, loss.name), default=None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is lost without an error, and what is only estimated."""
        estimated = [
            f"{peer} compressed a sample of {SAMPLE:,} bytes, its bytes are estimates; --peer {peer} takes all of them"
            for peer in self.sampled
        ]
        return (*loss_notes(self.losses), *estimated)

    def to_dict(self) -> dict[str, Any]:
        """The totals under the names of the command line's JSON."""
        return {
            "recipe": self.recipe,
            "bytes": self.ledger.artifact_bytes,
            "bits_per_weight": self.ledger.bits_per_weight,
            "entropy_bits_per_weight": self.ledger.entropy_bits / max(self.quantized_weights, 1),
            "overhead_percent": self.ledger.overhead_percent,
            "snr_db": self.snr_db,
            "mean_snr_db": self.mean_snr_db,
            "worst_snr_db": self.worst.snr_db if self.worst else None,
            "worst_tensor": self.worst.name if self.worst else None,
            "notes": list(self.notes),
            "hessian_snr_db": self.hessian_snr_db,
            "encode_seconds": self.encode_seconds,
            "decode_seconds": self.decode_seconds,
            "peer_bytes": self.peer_bytes,
            "sampled_peers": list(self.sampled),
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

    Where the recipe's own coder is not installed, FALLBACK takes its place.  A slow one gets a sample of more than
    LARGE weights, unless `peers` names it.

    layers: see `quantize_checkpoint`.  progress: told how many of STAGES are done.

    Raises: InputError for weights that cannot be quantized, CodecError if the round trip is not exact.
    """
    floats = {name: array.size for name, array in tensors.items() if array.dtype.kind == "f"}
    coder, peers = recipe.coder if installed(recipe.coder) else FALLBACK, [*peers]
    weights = sum(each.size for each in tensors.values())
    stages = Stages(progress, {"quantize": quantizing(recipe, tensors), **_costs(weights, coder, peers)})
    return _measured(
        quantize_checkpoint(tensors, recipe, layers, stages.of("quantize", weights)),
        stages=stages,
        recipe=recipe.name,
        treatments={name: recipe.rule(name, size).treatment for name, size in floats.items()},
        coder=coder,
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
    progress: Progress = silent,
) -> Measurement:
    """As `measure`, of tensors that are quantized already.  recipe: what to call it.

    tensors: the floats to compare with; without them nothing was lost, and no tensor has a ratio.  hessians: to weigh
    what was lost.

    Raises: CodecError if the round trip is not exact.
    """
    peers, weights = [*peers], sum(_size(each) for each in treated.values())
    return _measured(
        treated,
        stages=Stages(progress, _costs(weights, coder, peers)),
        recipe=recipe,
        treatments=treatments,
        coder=coder,
        peers=peers,
        tensors=tensors,
        hessians=hessians,
    )


def _costs(weights: int, coder: str, peers: Collection[str]) -> dict[str, float]:
    """Of the stages, in weights that are encoded."""
    slow = SAMPLE if weights > LARGE and coder not in peers else weights
    own = COMPRESS * (slow if coder in SLOW else weights)
    others = {peer: COMPRESS * weights for peer in peers if peer != coder}
    alone = own + LIBRARY * weights
    return {
        "encode": weights,
        "decode": DECODE * weights,
        "compare": DECODE * weights,
        coder: own,
        **others,
        ALONE: alone,
    }


def _measured(
    treated: Mapping[str, QuantizedTensor | np.ndarray],
    *,
    stages: Stages,
    recipe: str,
    treatments: Mapping[str, str] | None,
    coder: str,
    peers: Collection[str],
    tensors: Mapping[str, np.ndarray] | None,
    hessians: Mapping[str, np.ndarray] | None,
) -> Measurement:
    weights = sum(_size(each) for each in treated.values())
    stages.begin("encode")
    started = time.perf_counter()
    blob = encode(treated, {})
    encoded = time.perf_counter()
    stages.begin("decode")
    decoding = time.perf_counter()
    _, back = unpack(blob)
    decoded = time.perf_counter()
    if plain_bytes(back) != plain_bytes(treated):
        raise CodecError("the artifact does not decode to the levels that were encoded", where=f"recipe {recipe}")
    del back
    stages.begin("compare")
    lost = losses(tensors or {}, treated)
    sampled = coder in SLOW and weights > LARGE and coder not in peers
    peer_bytes = {}
    for peer in dict.fromkeys([coder, *peers]):
        stages.begin(peer)
        sampling = sampled and peer == coder
        peer_bytes[peer] = sampled_bytes(peer, treated, SAMPLE) if sampling else baseline_bytes(peer, treated)
    tensor_bytes, done = {}, 0
    library: dict[str, LibraryBytes] = {}
    one_by_one = stages.of(ALONE, weights)
    for name, each in treated.items():
        one_by_one(done, name)
        done += _size(each)
        share = max(SAMPLE * _size(each) // max(weights, 1), SAMPLE // 32)
        alone = {name: each}
        tensor_bytes[name] = sampled_bytes(coder, alone, share) if sampled else baseline_bytes(coder, alone)
        if isinstance(each, QuantizedTensor):
            library[name] = library_bytes(coded_levels(each))
    found = Measurement(
        recipe=recipe,
        treatments=dict(treatments or {}),
        ledger=ledger(blob, copies(tensors or {})),
        snr_db=decibel(sum(loss.signal for loss in lost.values()), sum(loss.noise for loss in lost.values())),
        encode_seconds=encoded - started,
        decode_seconds=decoded - decoding,
        peer_bytes=peer_bytes,
        tensor_peer_bytes=tensor_bytes,
        tensor_library_bytes=library,
        sampled=(coder,) if sampled else (),
        losses=lost,
        tensor_hessian_snr_db={
            name: decibel(*_output_energy(tensors[name], each, hessians[name]))
            for name, each in treated.items()
            if tensors and hessians and name in hessians and isinstance(each, QuantizedTensor)
        },
    )
    stages.end()
    return found


def _output_energy(weights: np.ndarray, treated: QuantizedTensor, hessian: np.ndarray) -> tuple[float, float]:
    """(energy of the layer's outputs, energy of their error), float64 sums."""
    moments, exact = hessian.astype(np.float64), weights.astype(np.float64)
    error = treated.dequantize() - exact
    return float(((exact @ moments) * exact).sum()), float(((error @ moments) * error).sum())


def _size(tensor: QuantizedTensor | np.ndarray) -> int:
    return tensor.levels.size if isinstance(tensor, QuantizedTensor) else tensor.size
