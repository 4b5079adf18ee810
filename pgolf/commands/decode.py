"""`pgolf decode`, also called `unpack`: a file of `pgolf encode`, an artifact or a submission -> checkpoint."""

from pathlib import Path

import click

from pgolf.console import echo, json_option, print_json, progress


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
