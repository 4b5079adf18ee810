"""`pgolf measure`: bits per weight, side by side."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgolf.console import echo, json_option, print_json, print_table, progress

LIBRARY = ("static", "adaptive")  # coders of constriction
if TYPE_CHECKING:
    from codec.measurement.byte_ledger import TensorCost
    from codec.measurement.measurement import Measurement
    from codec.progress import Progress


@click.command()
@click.argument("checkpoint")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("pr162",),
    show_default=True,
    help="A recipe's name, a TOML file, or `stored`: a quantized file's own levels.  Repeat it to compare.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    help="bit-packing, zlib-9, lzma-9e, zstd-22, brotli-11, brotli-11-shuffle: measured on the same levels.",
)
@click.option(
    "--hessians",
    "--calibration",
    "hessians",
    metavar="FILE",
    help="Of `pgolf calibrate`: for recipes with GPTQ, and to weigh the error.",
)
@click.option("--plot", metavar="FILE.png", help="Draw where the bytes go, and each tensor against its entropy.")
@json_option
def measure(
    checkpoint: str,
    recipes: tuple[str, ...],
    peers: tuple[str, ...],
    hessians: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Bits per weight of CHECKPOINT under each recipe: bytes, entropy, distortion, and the peer's bytes.

    CHECKPOINT: safetensors, a .pt state dict, a .bin of llama2.c, or a quantized .ptz of the challenge.

    Per tensor: `entropy` is the order-0 entropy of its levels, `rANS` what they cost here with classes and scales,
    then the recipe's own compressor on that tensor alone, and what coders of the library constriction need for the
    levels: a static one that knows the tensor's histogram for free, and one that learns it as it goes.
    Over entropy: what the quantized tensors cost with scales, tables and lanes, over the entropy of their levels plus
    the scales; floats are reported beside it.
    SNR dB: energy of the weights over that of their error, in all, as a mean over the weights, and of the worst tensor;
    what is rounded to zero is told.  Above 10 million weights a recipe's slow compressor gets a sample (~), unless
    --peer names it.
    Hessian dB: energy of the layers' outputs on the calibration data over that of their error.

    \b
    Example:
      pgolf measure out/demo/run/checkpoint.safetensors --recipe pr162 --recipe pr162-small
    """
    from codec.errors import UsageError
    from codec.measurement.compressors import BASELINES, FALLBACK, installed
    from codec.measurement.measurement import STAGES, measure_treated
    from codec.measurement.measurement import measure as measure_recipe
    from codec.measurement.weight_count import weight_count
    from codec.quantization.recipe import rounding_notes
    from codec.quantization.recipe_files import load_recipe
    from codec.storage.atomic_files import within
    from codec.storage.calibration_file import read_layers
    from packager.importers.imported import STORED
    from pgolf.checkpoints import read_weights
    from pgolf.plots import check_plot, draw_plot

    if plot:
        check_plot(plot)
    for peer in peers:
        if peer not in BASELINES:
            raise UsageError(f"unknown peer `{peer}`", hint=f"known: {', '.join(BASELINES)}")
    loaded = [None if name == STORED else load_recipe(name) for name in recipes]
    imported = read_weights(Path(checkpoint))
    levels = imported.levels() if None in loaded else {}
    layers = read_layers(hessians, checkpoint, imported.tensors) if hessians else None
    lost = [note for each in loaded if each for note in rounding_notes(each, imported.tensors, layers)]
    absent = sorted({each.coder for each in loaded if each and not installed(each.coder)})
    lost += [
        f"{coder} is not installed, {FALLBACK} is measured instead (pip install 'parameter-golf-kit[brotli]')"
        for coder in absent
    ]
    for note in (*imported.notes, *lost):
        echo(f"note: {note}", err=True)
    results = []
    weights = weight_count(imported.tensors)
    with progress("measure", STAGES * len(loaded) + bool(plot)) as step, within(checkpoint):
        for done, recipe in enumerate(loaded):
            told = partial(_shifted, step, STAGES * done, recipe.name if recipe else STORED)
            results.append(
                measure_recipe(imported.tensors, recipe, peers, layers, told)
                if recipe
                else measure_treated(levels, recipe=STORED, peers=peers, progress=told)
            )
        if plot:
            step(STAGES * len(loaded), "plot")
            draw_plot(results, f"{Path(checkpoint).name}: {weights:,} weights", plot)
            step(STAGES * len(loaded) + 1, "")
    for result in results:
        for note in result.notes:
            echo(f"note: recipe {result.recipe}: {note}", err=True)
    if as_json:
        print_json(
            {
                "checkpoint": checkpoint,
                "weights": weights,
                "recipes": [result.to_dict() for result in results],
                "tensors": [row for result in results for row in _tensor_rows(result)],
            }
        )
        return
    for result in results:
        _print_tensors(result, weighed=bool(hessians))
        click.echo()
    _print_recipes(results, weighed=bool(hessians))


def _shifted(step: "Progress", before: int, recipe: str, done: int, note: str) -> None:
    step(before + done, f"{recipe}: {note}" if note else "")


def _print_tensors(result: "Measurement", *, weighed: bool) -> None:
    """One row per tensor.  weighed: with the Hessians' view of the error."""
    print_table(
        [
            [
                row["name"],
                row["treatment"],
                f"{row['weights']:,}",
                f"{row['entropy_bits_per_weight']:.3f}",
                f"{row['bits_per_weight']:.3f}",
                f"{row['bytes']:,.0f}",
                f"{row['peer_bytes']:,}",
                *(["", ""] if row["static_bytes"] is None else [f"{row[f'{kind}_bytes']:,}" for kind in LIBRARY]),
                _tenths(row["snr_db"]),
                *([_tenths(row["hessian_snr_db"])] if weighed else []),
            ]
            for row in _tensor_rows(result)
        ],
        [
            f"{result.recipe}: tensor",
            "treatment",
            "weights",
            "entropy b/w",
            "rANS b/w",
            "rANS bytes",
            next(iter(result.peer_bytes)),
            *LIBRARY,
            "SNR dB",
            *(["Hessian dB"] if weighed else []),
        ],
    )


def _print_recipes(results: "list[Measurement]", *, weighed: bool) -> None:
    """One row per recipe."""
    print_table(
        [
            [
                result.recipe,
                f"{costs.artifact_bytes:,}",
                f"{costs.bits_per_weight:.3f}",
                f"{costs.overhead_percent:+.2f} %",
                " + ".join(f"{part:,.0f}" for part in (costs.level_bytes, costs.scale_bytes, costs.plain_bytes)),
                f"{costs.header_bytes:,.0f} + {costs.table_bytes:,}",
                " / ".join(_tenths(each) or "-" for each in _ratios(result)),
                *([_tenths(result.hessian_snr_db)] if weighed else []),
                f"{result.encode_seconds:.2f} / {result.decode_seconds:.2f} s",
                ", ".join(
                    f"{peer} {'~' if peer in result.sampled else ''}{count:,}"
                    for peer, count in result.peer_bytes.items()
                ),
            ]
            for result, costs in ((result, result.ledger) for result in results)
        ],
        [
            "recipe",
            "rANS bytes",
            "b/w",
            "over entropy",
            "levels + scales + floats",
            "header + tables",
            "SNR dB: all / mean / worst",
            *(["Hessian dB"] if weighed else []),
            "encode / decode",
            "peers",
        ],
    )


def _ratios(result: "Measurement") -> tuple[float | None, ...]:
    """Of all energy, as a mean over weights, of the worst tensor."""
    return result.snr_db, result.mean_snr_db, result.worst.snr_db if result.worst else None


def _tensor_rows(result: "Measurement") -> list[dict[str, Any]]:
    return [
        {
            "recipe": result.recipe,
            "name": row.name,
            "treatment": "tied" if row.stored_as == "tied" else result.treatments.get(row.name, row.stored_as),
            "stored_as": row.stored_as,
            "weights": row.weights,
            "entropy_bits_per_weight": row.entropy_bits / max(row.weights, 1),
            "bits_per_weight": row.bits_per_weight,
            "bytes": row.bytes,
            "payload_bytes": row.payload_bytes,
            "scale_bytes": row.scale_bytes,
            "column_step_bytes": row.column_step_bytes,
            "class_bytes": row.class_bytes,
            "over_entropy_percent": row.over_entropy_percent,
            "peer_bytes": result.tensor_peer_bytes[row.name],
            **{f"{kind}_bytes": _library(result, row, kind) for kind in LIBRARY},
            "snr_db": result.tensor_snr_db.get(row.name),
            "hessian_snr_db": result.tensor_hessian_snr_db.get(row.name),
        }
        for row in result.ledger.rows
    ]


def _library(result: "Measurement", row: "TensorCost", kind: str) -> int | None:
    """None for a plain tensor, and for a tie."""
    return getattr(result.tensor_library_bytes[row.name], kind) if row.quantized else None


def _tenths(value: float | None) -> str | None:
    """A tensor without error has no SNR."""
    return None if value is None or math.isinf(value) else f"{value:.1f}"
