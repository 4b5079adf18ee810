"""`pgolf report`: one page about a checkpoint, an artifact, a submission or runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgolf.console import echo, json_option, print_json, progress
from pgolf.data_origin import check_origin
from pgolf.options import cap_option, threads_option

if TYPE_CHECKING:
    from verify import HeldOut

_file = click.Path(path_type=Path)
_positive = click.IntRange(min=1)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=_file)
@click.option(
    "--output", "-o", default="report.html", show_default=True, type=_file, help="The page; an earlier one is replaced."
)
@click.option("--checkpoint", type=_file, help="What the artifact or submission was packed from: adds signal to noise.")
@click.option("--hessians", type=_file, metavar="FILE", help="Of `pgolf calibrate`: adds the predicted loss by tensor.")
@click.option("--recipe", help="For a checkpoint: the recipe to show it under.  [default: its own levels, or pr162]")
@click.option("--data", type=_file, help="Folder with *_val_*.bin and one *.model: runs and scores the submission.")
@click.option("--limit-tokens", type=_positive, metavar="N", help="Score only the first N targets.")
@click.option("--stride", type=_positive, help="Targets scored per window.  [default: 64, if they fit]")
@threads_option
@click.option(
    "--measure-loss",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Score the float model with one tensor rounded, for the N tensors predicted to matter most: N + 1 scores of "
    "--data.",
)
@click.option(
    "--against", multiple=True, metavar="MEAN|RUN|RECORD", help="What runs have to beat, as in compare; repeat."
)
@cap_option
@json_option
def report(
    paths: tuple[Path, ...],
    output: Path,
    checkpoint: Path | None,
    hessians: Path | None,
    recipe: str | None,
    data: Path | None,
    limit_tokens: int | None,
    stride: int | None,
    threads: int | None,
    measure_loss: int,
    against: tuple[str, ...],
    cap: int,
    as_json: bool,
) -> None:
    """One self-contained HTML page about PATH...: where the bytes are, what rounding costs, where the model is bad.

    PATH: a checkpoint, an artifact, a submission's folder, a log, or a folder of logs.  Logs, and folders without a
    submission.json, are runs of one recipe; several recipes and submissions stand side by side.
    Nothing runs a model unless --data is given.  What is not known is named on the page, with the option that gives it.

    \b
    Examples:
      pgolf report out/demo/submission -o report.html
      pgolf report out/demo/submission --data out/demo/data --checkpoint out/demo/run/checkpoint.safetensors
      pgolf report run0 run1 run2 --against 1.0810
    """
    from codec.errors import UsageError
    from codec.storage.atomic_files import check_writable, write_bytes
    from pgolf.commands.compare import scores_to_beat
    from pgolf.report.gather import gather
    from pgolf.report.options import Options
    from pgolf.report.page import report_page

    if output.suffix != ".html":
        raise UsageError("the report is a page", where=str(output), hint="let the name end in .html")
    check_writable(output)
    options = Options(
        cap=cap,
        checkpoint=checkpoint,
        hessians=hessians,
        recipe=recipe,
        heldout=_heldout(data, limit_tokens) if data else None,
        stride=stride,
        threads=threads,
        measured_losses=measure_loss,
        against=scores_to_beat(against) if against else None,
    )
    found = gather(paths, options, progress)
    text = report_page(found).encode()
    write_bytes(output, text)
    if as_json:
        print_json({"report": str(output), "bytes": len(text), **found.to_dict()})
        return
    for each in found.subjects:
        for missing in each.missing:
            echo(f"note: {each.name}: not shown: {missing.what} ({missing.how})", err=True)
    echo(f"{output}: {len(text):,} bytes")


def _heldout(data: Path, limit: int | None) -> "HeldOut":
    from codec.storage.token_shards import find_shards, find_tokenizer
    from verify import HeldOut

    shards, tokenizer = find_shards(data, "val"), find_tokenizer(data)
    heldout = HeldOut.read(shards, tokenizer, limit)
    check_origin(shards, heldout.tokenizer_sha256)
    return heldout
