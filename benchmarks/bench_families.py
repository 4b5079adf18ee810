"""Histograms or a distribution family: what levels cost under tables that are counted, and under fitted densities.

python -m benchmarks.bench_families --weights model.safetensors --output results.json
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.machine import describe
from codec.decoder import QuantizedTensor
from codec.entropy.code_length import table_cost
from codec.entropy.level_tables import Matrix, level_bits
from codec.entropy.models import fit_group
from codec.quantization.recipe import quantize_checkpoint
from codec.quantization.recipe_files import load_recipe
from codec.storage.atomic_files import write_bytes
from packager.importers.read_any import read_any
from pgolf.console import print_table

STEPS = 4  # classes of scale per octave, as fine as the finest of codec.entropy.models
NAMES = ("normal", "laplace", "shape per tensor")
SHAPES = np.linspace(0.6, 3.0, 25)  # of the generalized normal: 1 is Laplace's, 2 the normal
MOST_TABLES = 100
VERSIONS = ("parameter-golf-kit", "numpy", "torch")


@click.command()
@click.option("--weights", "paths", multiple=True, required=True, type=click.Path(path_type=Path))
@click.option("--recipe", default="pr162-small", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write everything as JSON.")
def bench(paths: tuple[Path, ...], recipe: str, output: Path | None) -> None:
    """Bytes of the levels of each checkpoint, tables, shapes and classes of rows included; no lanes, no scales."""
    results = [_result(path, recipe) for path in paths]
    if output:
        report = {"benchmark": "families", "recipe": recipe, "machine": describe(VERSIONS), "results": results}
        write_bytes(output, json.dumps(report, indent=1).encode() + b"\n")
    print_table(
        [
            (
                row["checkpoint"],
                f"{row['histograms']:,.0f}",
                *(f"{row[name] / row['histograms']:.4f}" for name in NAMES),
            )
            for row in results
        ],
        ("checkpoint", "histograms, bytes", *(f"{name} / it" for name in NAMES)),
    )


def _result(path: Path, recipe: str) -> dict[str, Any]:
    treated = quantize_checkpoint(read_any(path).tensors, load_recipe(recipe))
    groups: dict[int, list[np.ndarray]] = {}
    for tensor in treated.values():
        if isinstance(tensor, QuantizedTensor) and tensor.levels.size:
            rows = tensor.levels.reshape(len(tensor.scales), -1)
            groups.setdefault(level_bits(rows), []).append(rows)
    found = dict.fromkeys(("histograms", *NAMES), 0.0)
    for members in groups.values():
        fitted = fit_group([Matrix(levels=each) for each in members], MOST_TABLES)
        planes = [counts for name in ("row_classes", "column_classes") if (counts := fitted.side_counts(name)).any()]
        found["histograms"] += sum(table_cost(counts) for counts in (*fitted.counts, *planes)) / 8192
        for name, bits in _families(members):
            found[name] += bits / 8
    return {"checkpoint": path.name, "levels": sum(rows.size for each in groups.values() for rows in each), **found}


def _families(members: list[np.ndarray]) -> Iterator[tuple[str, float]]:
    """Every row under the density of its own root mean square, in classes of a quarter octave: (name, bits)."""
    costs = np.stack([_costs(rows, SHAPES) for rows in members])  # (tensors, shapes)
    classes = np.concatenate([_classes(rows) for rows in members])
    counts = np.unique(classes, return_counts=True)[1]
    named = float(-(counts * np.log2(counts / counts.sum())).sum()) + 16 * len(counts)
    yield "normal", costs[:, np.abs(SHAPES - 2).argmin()].sum() + named
    yield "laplace", costs[:, np.abs(SHAPES - 1).argmin()].sum() + named
    yield "shape per tensor", costs.min(1).sum() + named + 8 * len(members)


def _classes(rows: np.ndarray) -> np.ndarray:
    energy = np.square(rows.astype(np.float64)).mean(1)
    return np.rint(STEPS * np.log2(np.maximum(energy, 2**-12)) / 2).astype(int)


def _costs(rows: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Bits of a matrix under the generalized normal of each shape; the outermost levels hold the tails."""
    low, high = int(rows.min()), int(rows.max())
    classes = _classes(rows)
    counts = {
        each: np.bincount(rows[classes == each].ravel().astype(int) - low, minlength=high - low + 1)
        for each in np.unique(classes)
    }
    edges = torch.arange(low, high, dtype=torch.float64) + 0.5
    totals = []
    for shape in shapes:
        total = 0.0
        for each, seen in counts.items():
            scale = 2.0 ** (each / STEPS) * math.exp((math.lgamma(1 / shape) - math.lgamma(3 / shape)) / 2)
            inner = torch.special.gammainc(torch.tensor(1 / shape, dtype=torch.float64), (edges.abs() / scale) ** shape)
            below = 0.5 + 0.5 * torch.sign(edges) * inner
            shares = torch.diff(below, prepend=torch.zeros(1), append=torch.ones(1)).clamp_min(2.0**-14).numpy()
            total -= float((seen * np.log2(shares / shares.sum())).sum())
        totals.append(total)
    return np.array(totals)


if __name__ == "__main__":
    bench()
