"""`pgolf unpack`: artifact or submission -> checkpoint."""

from pathlib import Path

import click

from pgolf.console import echo, json_option, print_json


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="safetensors file to write or replace."
)
@json_option
def unpack(path: Path, output: Path, as_json: bool) -> None:
    """Write the weights of an artifact or submission folder as a checkpoint, as `pgolf pack` found their names.

    Quantized tensors come back as the float32 values that the packed model computes with.

    \b
    Example:
      pgolf unpack out/submission -o out/unpacked.safetensors
    """
    from codec.decoder import decode, read_meta
    from codec.errors import PgolfError
    from codec.storage.atomic_files import read_bytes
    from codec.storage.checkpoint import write_checkpoint
    from pgolf.checkpoints import BANKED
    from trainer.presets.published_layouts import join_banks

    artifact = path / "model.bin" if path.is_dir() else path
    blob = read_bytes(artifact)
    try:
        meta, tensors = read_meta(blob), decode(blob)
        if meta.get("layout") == BANKED:
            tensors = join_banks(tensors)
    except PgolfError as error:
        error.where = f"{artifact}, {error.where}" if error.where else str(artifact)
        raise
    write_checkpoint(output, tensors, meta)
    weights = sum(array.size for array in tensors.values())
    if as_json:
        print_json({"checkpoint": str(output), "tensors": len(tensors), "weights": weights, "meta": meta})
        return
    echo(f"{len(tensors)} tensors, {weights:,} weights, recipe {meta.get('recipe', 'unknown')}")
    click.echo(output)
