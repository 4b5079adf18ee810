"""Our artifact beside what the field uses, on the same levels and scales: bytes, overhead, speed, memory.

python -m benchmarks.bench_codec --weights model.safetensors --weights final_model.int8.ptz --output results.json
"""

import hashlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.compared.peers import LARGE, OPTIONAL, QUICK, Peer, installed_peers, nncodec_points
from benchmarks.processes.memory import peak_memory, save
from codec.decoder import QuantizedTensor, Stream, decode, open_artifact, read_tensors, unpack
from codec.encoder import encode
from codec.errors import CodecError, PgolfError
from codec.measurement.byte_ledger import ledger
from codec.measurement.compressors import Tensors, packed_bytes, plain_bytes
from codec.quantization.recipe import quantize_checkpoint
from codec.quantization.recipe_files import load_recipe
from codec.storage.atomic_files import read_bytes, write_bytes
from packager.importers.read_any import read_any
from pgolf.console import print_table

LARGE_WEIGHTS = 10_000_000
VERSIONS = ("parameter-golf-kit", "numpy", "zstandard", "brotli", "constriction", "zpaq", "nncodec")
COLUMNS = ("coder", "bytes", "ours / it", "bits/weight", "encode ns/weight", "decode ns/weight")


@click.command()
@click.option("--weights", "paths", multiple=True, type=click.Path(path_type=Path), help="A checkpoint; repeat it.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Shapes for a random full-size state dict.")
@click.option("--recipe", "recipes", multiple=True, default=("pr162-small", "pr1716"), show_default=True)
@click.option("--quick", is_flag=True, help="Fewer peers, every time taken once.")
@click.option("--output", type=click.Path(path_type=Path), help="Write everything as JSON.")
def bench(paths: tuple[Path, ...], manifest: Path | None, recipes: tuple[str, ...], quick: bool, output: Path | None):
    """Race the codec against general compressors and other entropy coders, one process, one thread."""
    results, curves = [], []
    for path in paths:
        imported = read_any(path)
        floats = {name: array for name, array in imported.tensors.items() if array.dtype.kind == "f"}
        subjects = [(recipe, _quantize(imported.tensors, recipe)) for recipe in recipes]
        if imported.stored:
            subjects.insert(0, ("stored", imported.stored))
        for recipe, tensors in subjects:
            results.append(_result(path.name, recipe, tensors, imported.tensors, quick))
            results[-1]["file_bytes"] = path.stat().st_size
        if not quick and "nncodec" not in _missing():
            curves.append(_curve(path.name, floats, [each for each in results if each["checkpoint"] == path.name]))
    if manifest:
        tensors = synthetic(manifest)
        results.append(_result("synthetic", "pr1716", _quantize(tensors, "pr1716"), tensors, quick))
    report = {
        "benchmark": "codec",
        "quick": quick,
        "machine": _machine(),
        "missing": _missing(),
        "results": results,
        "nncodec": curves,
    }
    if output:
        write_bytes(output, (json.dumps(report, indent=1) + "\n").encode())


def synthetic(manifest: Path) -> dict[str, np.ndarray]:
    """Gaussian rows whose spreads are log-normal (a factor 1.35 up or down), float32, in the shapes of a manifest.

    manifest: JSON {"state_dict": {name: {"shape": [...]}}}.
    """
    random = np.random.default_rng(0)
    tensors = {}
    for name, entry in json.loads(read_bytes(manifest))["state_dict"].items():
        shape = tuple(entry["shape"])
        spreads = random.lognormal(np.log(0.02), 0.3, shape[:1] + (1,) * (len(shape) - 1))
        tensors[name] = (random.standard_normal(shape, np.float32) * spreads).astype(np.float32)
    return tensors


class Tally(Stream):
    """A Stream that counts how often each symbol was decoded under each table."""

    def __init__(self, frequencies: np.ndarray, states: np.ndarray, words: np.ndarray) -> None:
        super().__init__(frequencies, states, words)
        self.counts = np.zeros(frequencies.shape, np.int64)

    def take(self, tables: np.ndarray) -> np.ndarray:
        symbols = super().take(tables)
        np.add.at(self.counts, (tables, symbols), 1)
        return symbols


def model_bytes(blob: bytes) -> float:
    """The claim behind an artifact: everything it codes at the empirical entropy of its table, plus the tables.

    Beyond it an artifact holds what rounding the tables, the states of the lanes and 16-bit words cost.
    """
    stream, header = open_artifact(blob, Tally)
    assert isinstance(stream, Tally)
    read_tensors(stream, header)
    uniform, *counted = stream.counts
    bits = 8.0 * uniform.sum()  # bytes that no stored table models
    for counts in counted:
        present = counts[counts > 0]
        bits -= (present * np.log2(present / present.sum())).sum()
    fixed_fields, table_bytes = 24, int.from_bytes(blob[8:12], "little")
    return fixed_fields + table_bytes + float(bits) / 8


def _quantize(tensors: dict[str, np.ndarray], recipe: str) -> dict[str, QuantizedTensor | np.ndarray]:
    return quantize_checkpoint(tensors, load_recipe(recipe))


def _result(checkpoint: str, recipe: str, tensors: Tensors, floats: Tensors, quick: bool) -> dict[str, Any]:
    """Race every peer on one set of levels, print the table, return what goes into the JSON."""
    weights = sum(_size(tensor) for tensor in tensors.values())
    blob, encode_ns = _timed(lambda: encode(tensors, {}), weights, quick)
    _, decode_ns = _timed(lambda: decode(blob), weights, quick)
    plain = plain_bytes(tensors)
    if plain_bytes(unpack(blob)[1]) != plain:
        raise CodecError("the artifact does not decode to what was encoded", where=f"{checkpoint}, {recipe}")
    names = QUICK if quick else LARGE if weights > LARGE_WEIGHTS else ()
    packed = packed_bytes(tensors)
    peers: dict[str, dict[str, Any]] = {
        "bit-packing": {"bytes": packed, "encode_ns_per_weight": None, "decode_ns_per_weight": None}
    }
    for name, peer in installed_peers(names).items():
        peers[name] = _race(name, peer, tensors, weights, quick)
    for each in peers.values():
        each["ours_to_it"] = len(blob) / each["bytes"]
    costs = ledger(blob)
    best = min(peers, key=lambda name: peers[name]["bytes"])
    claimed = model_bytes(blob)
    result = {
        "checkpoint": checkpoint,
        "recipe": recipe,
        "levels_sha256": hashlib.sha256(plain).hexdigest(),
        "weights": weights,
        "quantized_weights": sum(_size(tensor) for tensor in tensors.values() if isinstance(tensor, QuantizedTensor)),
        "bytes": len(blob),
        "bits_per_weight": 8 * len(blob) / weights,
        "header_bytes": costs.header_bytes,
        "table_bytes": costs.table_bytes,
        "lane_bytes": costs.lane_bytes,
        "model_bytes": claimed,
        "over_model_percent": 100 * (len(blob) / claimed - 1),
        "order0_entropy_bytes": costs.entropy_bits / 8,
        "over_order0_percent": costs.overhead_percent,
        "snr_db": None if recipe == "stored" else _snr(floats, tensors),
        "encode_ns_per_weight": encode_ns,
        "decode_ns_per_weight": decode_ns,
        **_memory(blob, tensors, weights),
        "peers": peers,
        "best_peer": best,
        "ours_to_best_peer": peers[best]["ours_to_it"],
    }
    _print(result)
    return result


def _race(name: str, peer: Peer, tensors: Tensors, weights: int, quick: bool) -> dict[str, Any]:
    blob, encode_ns = _timed(lambda: peer.encode(tensors), weights, quick)
    back, decode_ns = _timed(lambda: peer.decode(blob, tensors), weights, quick)
    if back != peer.layout(tensors):
        raise CodecError(f"{name} does not give back what it was given")
    return {"bytes": len(blob), "encode_ns_per_weight": encode_ns, "decode_ns_per_weight": decode_ns}


def _timed(work: Callable[[], bytes], weights: int, quick: bool) -> tuple[Any, float]:
    """(result, processor nanoseconds per weight); the best of three where one takes less than a second.

    Not by the clock: every coder here runs on this thread alone, and the machine may be busy with something else.
    """
    seconds = []
    while not seconds or (not quick and len(seconds) < 3 and seconds[0] < 1):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return result, 1e9 * min(seconds) / weights


def _memory(blob: bytes, tensors: Tensors, weights: int) -> dict[str, float | None]:
    """Peak bytes of each direction, input and output included, and as a multiple of the float32 weights."""
    with tempfile.TemporaryDirectory() as folder:
        state, artifact = Path(folder, "state.npz"), Path(folder, "artifact")
        save(state, tensors)
        artifact.write_bytes(blob)
        peaks = {"encode": peak_memory("encode", state), "decode": peak_memory("decode", artifact)}
    found: dict[str, float | None] = {}
    for action, peak in peaks.items():
        found[f"{action}_peak_bytes"] = peak
        found[f"{action}_peak_of_float32"] = None if peak is None else peak / (4 * weights)
    return found


def _curve(checkpoint: str, floats: dict[str, np.ndarray], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """NNCodec's rate and distortion, and its bytes at the distortion of our recipes, by interpolation.

    Only of recipes that quantize 95 % of the weights: one that keeps matrices in float16 spends its bits elsewhere.
    """
    points = [point.figures() for point in nncodec_points(floats)]
    noise, sizes = [each["snr_db"] for each in points], [each["bytes"] for each in points]
    found = {}
    for each in ours:
        snr = each["snr_db"]
        if snr is None or each["quantized_weights"] < 0.95 * each["weights"] or not noise[0] <= snr <= noise[-1]:
            continue
        theirs = float(np.exp(np.interp(snr, noise, np.log(sizes))))
        found[each["recipe"]] = {"snr_db": snr, "nncodec_bytes": theirs, "ours_to_it": each["bytes"] / theirs}
        click.echo(f"{checkpoint}, {each['recipe']}: ours / NNCodec at {snr:.1f} dB {each['bytes'] / theirs:.4f}")
    return {"checkpoint": checkpoint, "points": points, "at_our_snr": found}


def _snr(floats: Tensors, tensors: Tensors) -> float | None:
    signal = noise = 0.0
    for name, treated in tensors.items():
        exact = np.asarray(floats[name])
        if exact.dtype.kind == "f":
            values = treated.dequantize() if isinstance(treated, QuantizedTensor) else treated
            signal += float((exact.astype(np.float64) ** 2).sum())
            noise += float(((values.astype(np.float64) - exact) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise else None


def _size(tensor: QuantizedTensor | np.ndarray) -> int:
    return tensor.levels.size if isinstance(tensor, QuantizedTensor) else tensor.size


def _missing() -> list[str]:
    from importlib.util import find_spec

    return [package for package in OPTIONAL if not find_spec(package)]


def _machine() -> dict[str, Any]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    versions = {}
    for package in VERSIONS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": model, "python": platform.python_version(), "versions": versions}


def _print(result: dict[str, Any]) -> None:
    weights = result["weights"]
    lines = [("ours", {**result, "ours_to_it": 1.0}), *sorted(result["peers"].items(), key=lambda p: p[1]["bytes"])]
    click.echo(f"\n{result['checkpoint']}, {result['recipe']}: {weights:,} weights")
    rows = []
    for name, each in lines:
        times = [each[f"{action}_ns_per_weight"] for action in ("encode", "decode")]
        cells = ["" if time is None else f"{time:,.0f}" for time in times]
        rows.append(
            [name, f"{each['bytes']:,}", f"{each['ours_to_it']:.4f}", f"{8 * each['bytes'] / weights:.3f}", *cells]
        )
    print_table(rows, COLUMNS)
    peaks = [result[f"{action}_peak_of_float32"] for action in ("encode", "decode")]
    click.echo(
        f"over our model {result['over_model_percent']:+.3f} %, over order-0 {result['over_order0_percent']:+.2f} %"
        + ("" if None in peaks else f", peak memory {peaks[0]:.2f} / {peaks[1]:.2f} x float32")
    )


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
