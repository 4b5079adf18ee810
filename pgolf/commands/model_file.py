"""`pgolf encode` and `pgolf decode` (also `unpack`): any safetensors checkpoint -> one small file, and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import calibration_option, size_options

if TYPE_CHECKING:
    from codec.model_file import EncodedModel


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--recipe", help="A recipe's name or a TOML file.  [default: best]")
@size_options
@calibration_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="File to write or replace.")
@click.option("--dry-run", is_flag=True, help="Show what it would have, write nothing.")
@json_option
def encode(
    checkpoint: Path,
    recipe: str | None,
    artifact_bytes: int | None,
    bits_per_weight: float | None,
    calibration: Path | None,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize and entropy-code CHECKPOINT, of any model: no script, no cap.  `pgolf decode` turns it back.

    CHECKPOINT: a safetensors file, the *.safetensors.index.json of a sharded one, or the folder that holds either.

    What the recipe leaves as floats passes through bit for bit, bfloat16 as bfloat16, as integers do; what it
    quantizes comes back as float32.  --bytes and --bits-per-weight move the recipe's steps to a size.

    Recipe `best` wants a calibration: `pgolf calibrate` makes one for the toolkit's model, `trainer.Hooks` from forward
    passes of any torch module.

    \b
    Example:
      pgolf encode model.safetensors --bits-per-weight 3.3 -o model.pga
      pgolf encode model.safetensors.index.json --calibration calibration.safetensors --bytes 8000000 -o model.pga
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output' (or --dry-run).")
    from codec.model_file import STAGES, encode_checkpoint
    from codec.quantization.recipe_files import DEFAULT_RECIPE
    from codec.storage.atomic_files import check_writable, write_bytes
    from pgolf.commands.calibrate import calibration_beside

    if output and not dry_run:
        check_writable(output)
    if recipe is None:
        recipe, calibration = DEFAULT_RECIPE, calibration or calibration_beside(checkpoint)
    fits = artifact_bytes is not None or bits_per_weight is not None
    with progress("encode", STAGES, most=fits) as step:
        encoded = encode_checkpoint(
            checkpoint,
            recipe,
            artifact_bytes=artifact_bytes,
            bits_per_weight=bits_per_weight,
            calibration=calibration,
            progress=step,
        )
    for note in encoded.notes:
        echo(f"note: {note}", err=True)
    written = None if dry_run or output is None else output
    if written:
        write_bytes(written, encoded.artifact)
    if as_json:
        print_json({"file": str(written) if written else None, **encoded.to_dict()})
        return
    _print(encoded, written)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="safetensors file to write or replace."
)
@json_option
def decode(path: Path, output: Path, as_json: bool) -> None:
    """Write the weights of PATH as a safetensors checkpoint: of what `pgolf encode` made, an artifact, a submission.

    Names are those that `pgolf encode` or `pgolf pack` found.  Quantized tensors come back as the float32 values that
    the packed model computes with.  What passed through `encode` has its own dtype and bits.

    \b
    Example:
      pgolf decode model.pga -o decoded.safetensors
      pgolf decode out/submission -o out/decoded.safetensors
    """
    from codec.model_file import decode_checkpoint
    from codec.storage.atomic_files import check_writable, within
    from pgolf.checkpoints import joined

    check_writable(output)
    with progress("decode", 2, left=False) as step:
        step(0, "decode")
        decoded = decode_checkpoint(path)
        with within(path):
            decoded = joined(decoded)
        step(1, "write")
        decoded.write(output)
        step(2, "")
    if as_json:
        print_json({"checkpoint": str(output), **decoded.to_dict()})
        return
    count, recipe = len(decoded.tensors), decoded.meta.get("recipe", "unknown")
    echo(f"{count} tensors, {decoded.weights:,} weights, recipe {recipe}")
    click.echo(output)


def _print(encoded: "EncodedModel", written: Path | None) -> None:
    from pgolf.fit_report import print_fit

    costs = encoded.ledger
    kept = len(encoded.passed)
    rows = [
        ("levels", f"{costs.level_bytes:,.0f}"),
        ("scales and steps", f"{costs.scale_bytes + costs.column_step_bytes:,.0f}"),
        (f"other tensors ({kept} as they were)", f"{costs.plain_bytes:,.0f}"),
        ("tables, header, lanes", f"{costs.table_bytes + costs.header_bytes + costs.lane_bytes:,.0f}"),
        ("all", f"{len(encoded.artifact):,}"),
    ]
    print_table(rows, ("part", "bytes"))
    click.echo(
        f"{encoded.bits_per_weight:.3f} bits for each of {encoded.weights:,} weights, recipe {encoded.recipe}, "
        f"SNR {encoded.snr_db:.2f} dB"
    )
    if encoded.fitted:
        print_fit(encoded.fitted)
    elif encoded.nats is not None:
        click.echo(f"predicted: rounding adds {encoded.nats:.6f} nats to the loss of a token")
    click.echo(written or "(nothing written)")
