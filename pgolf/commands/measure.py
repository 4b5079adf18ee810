"""`pgolf measure`: bits per weight, side by side."""

import math
from pathlib import Path

import click

from pgolf.console import echo, json_option, print_json, print_table, progress


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
@click.option("--hessians", metavar="FILE", help="Of `pgolf calibrate`: for recipes with GPTQ, and to weigh the error.")
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
    the last columns the recipe's own compressor on that tensor alone.  Over entropy: what the quantized tensors cost
    with scales, tables and lanes, over the entropy of their levels plus the scales; floats are reported beside it.
    Hessian dB: energy of the layers' outputs on the calibration data over that of their error.

    \b
    Example:
      pgolf measure out/demo/run/checkpoint.safetensors --recipe pr162 --recipe pr162-small
    """
    from codec.errors import UsageError
    from codec.measurement.compressors import BASELINES, FALLBACK, installed
    from codec.measurement.measurement import measure as measure_recipe
    from codec.measurement.measurement import measure_treated
    from codec.quantization.recipe import load_recipe, rounding_notes
    from codec.storage.atomic_files import within
    from codec.storage.calibration_file import read_hessians
    from packager.importers.imported import STORED
    from pgolf import plots as picture
    from pgolf.checkpoints import read_weights

    if plot:
        picture.check(plot)
    for peer in peers:
        if peer not in BASELINES:
            raise UsageError(f"unknown peer `{peer}`", hint=f"known: {', '.join(BASELINES)}")
    loaded = [None if name == STORED else load_recipe(name) for name in recipes]
    imported = read_weights(Path(checkpoint))
    levels = imported.levels() if None in loaded else {}
    moments = read_hessians(hessians, checkpoint, imported.tensors) if hessians else None
    lost = [] if hessians else [note for each in loaded if each for note in rounding_notes(each, imported.tensors)]
    absent = sorted({each.coder for each in loaded if each and not installed(each.coder)})
    lost += [
        f"{coder} is not installed, {FALLBACK} is measured instead (pip install 'parameter-golf-kit[brotli]')"
        for coder in absent
    ]
    for note in (*imported.notes, *lost):
        echo(f"note: {note}", err=True)
    results = []
    with progress("measure", len(loaded)) as step, within(checkpoint):
        for done, recipe in enumerate(loaded):
            step(done, recipe.name if recipe else STORED)
            results.append(
                measure_recipe(imported.tensors, recipe, peers, moments)
                if recipe
                else measure_treated(levels, recipe=STORED, peers=peers)
            )
        step(len(loaded), "")
    weights = sum(array.size for array in imported.tensors.values())
    if plot:
        picture.draw(results, f"{Path(checkpoint).name}: {weights:,} weights", plot)
    if as_json:
        print_json(
            {
                "checkpoint": checkpoint,
                "weights": weights,
                "recipes": [_finite(r.to_dict()) for r in results],
                "tensors": [row for result in results for row in _tensor_rows(result)],
            }
        )
        return
    weighed = ["Hessian dB"] if hessians else []
    for result in results:
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
                    _tenths(row["snr_db"]),
                    *([_tenths(row["hessian_snr_db"])] if hessians else []),
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
                "SNR dB",
                *weighed,
            ],
        )
        click.echo()
    print_table(
        [
            [
                r.recipe,
                f"{r.ledger.artifact_bytes:,}",
                f"{r.ledger.bits_per_weight:.3f}",
                f"{r.ledger.overhead_percent:+.2f} %",
                " + ".join(
                    f"{part:,.0f}" for part in (r.ledger.level_bytes, r.ledger.scale_bytes, r.ledger.plain_bytes)
                ),
                f"{r.ledger.header_bytes:,.0f} + {r.ledger.table_bytes:,}",
                f"{r.snr_db:.1f}",
                *([_tenths(r.hessian_snr_db)] if hessians else []),
                f"{r.encode_seconds:.2f} / {r.decode_seconds:.2f} s",
                ", ".join(f"{peer} {count:,}" for peer, count in r.peer_bytes.items()),
            ]
            for r in results
        ],
        [
            "recipe",
            "rANS bytes",
            "b/w",
            "over entropy",
            "levels + scales + floats",
            "header + tables",
            "SNR dB",
            *weighed,
            "encode / decode",
            "peers",
        ],
    )


def _tensor_rows(result) -> list[dict]:
    return [
        _finite(
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
                "snr_db": result.tensor_snr_db.get(row.name),
                "hessian_snr_db": result.tensor_hessian_snr_db.get(row.name),
            }
        )
        for row in result.ledger.rows
    ]


def _tenths(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _finite(row: dict) -> dict:
    """JSON has no infinity: a tensor without error has no SNR."""
    return {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in row.items()}
