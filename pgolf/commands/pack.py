"""`pgolf pack`: checkpoint -> submission folder under the byte cap."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import cap_option

if TYPE_CHECKING:
    from packager.script.wrapper import Form


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("--recipe", help="A recipe's name, a TOML file, or `stored`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to write; an earlier submission there is replaced."
)
@cap_option
@click.option("--script", type=click.Path(path_type=Path), help="Instead of the reference script.")
@click.option(
    "--artifact", type=click.Path(path_type=Path), metavar="FILE", help="Of the script's own, instead of CHECKPOINT."
)
@click.option(
    "--artifact-from", metavar="COMMAND", help="Run it first, with your rights: it writes the artifact, one new file."
)
@click.option(
    "--form",
    type=click.Choice(["safe", "dense"]),
    default="safe",
    show_default=True,
    help="Of the packed script, with --artifact; see `pgolf wrap`.",
)
@click.option("--author", help="For submission.json.")
@click.option("--name", "title", help="For submission.json and README.md.")
@click.option(
    "--hessians", type=click.Path(path_type=Path), metavar="FILE", help="Of `pgolf calibrate`, for recipes with GPTQ."
)
@click.option("--no-minify", is_flag=True, help="Carry the sources as they are written.")
@click.option("--dry-run", is_flag=True, help="Show the plan, write nothing.")
@json_option
def pack(
    checkpoint: Path | None,
    recipe: str | None,
    output: Path | None,
    cap: int,
    script: Path | None,
    artifact: Path | None,
    artifact_from: str | None,
    form: "Form",
    author: str | None,
    title: str | None,
    hessians: Path | None,
    no_minify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize CHECKPOINT, encode it and put it beside a script that runs it.

    With --artifact there is no CHECKPOINT: --script is wrapped, and the file that it wrote lies beside it as it is.

    CHECKPOINT: safetensors, a .pt state dict, or a quantized .ptz of the challenge, whose own levels `--recipe
    stored` keeps as they are.  A file of a seed system or the baseline needs no config: its shapes tell the model.

    \b
    Example:
      pgolf pack out/run/checkpoint.safetensors --recipe pr162 -o out/submission
      pgolf pack run/checkpoint.safetensors --recipe pr1716 --hessians run/calibration.safetensors -o submission
      pgolf pack --script train_gpt_human.py --artifact final_model.int6.ptz -o submission
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output' (or --dry-run).")
    if artifact is not None or artifact_from is not None:
        if script is None or checkpoint is not None or recipe is not None or hessians is not None:
            raise click.UsageError("--artifact goes with --script, without CHECKPOINT, --recipe and --hessians.")
        _pack_own(script, artifact, artifact_from, form, output, cap, author, title, no_minify, dry_run, as_json)
        return
    if checkpoint is None or recipe is None:
        raise click.UsageError("Missing CHECKPOINT and '--recipe' (or --script with --artifact).")
    from packager.submission import STAGES, PackOptions, build_submission, plan_submission
    from pgolf.checkpoints import read_model, read_weights

    options = PackOptions(
        checkpoint=checkpoint,
        recipe=recipe,
        script=script,
        cap=cap,
        author=author,
        title=title,
        minified=not no_minify,
        hessians=hessians,
        read=read_weights if script else read_model,  # a script of one's own knows its model
    )
    with progress("pack", STAGES) as step:
        if output is None or dry_run:
            submission = plan_submission(options, step)
        else:
            submission = build_submission(options, output, step)
    for note in submission.notes:
        echo(f"note: {note}", err=True)
    written = None if dry_run else str(output)
    if as_json:
        print_json(
            {
                "submission": written,
                "recipe": submission.recipe,
                "artifact_bytes": submission.artifact_bytes,
                "code_bytes": submission.code_bytes,
                "total_bytes": submission.total_bytes,
                "cap_bytes": cap,
                "sha256": submission.sha256,
            }
        )
        return
    rows = [
        ("code", submission.code_bytes),
        ("artifact", submission.artifact_bytes),
        ("total", submission.total_bytes),
        ("cap", cap),
        ("left", cap - submission.total_bytes),
    ]
    print_table([(name, f"{size:,}") for name, size in rows], ("part", "bytes"))
    click.echo(f"{submission.ledger.bits_per_weight:.3f} bits per weight, recipe {submission.recipe}")
    click.echo(f"sha256 {submission.sha256}  {written or '(nothing written)'}")


def _pack_own(
    script: Path,
    artifact: Path | None,
    command: str | None,
    form: "Form",
    output: Path | None,
    cap: int,
    author: str | None,
    title: str | None,
    no_minify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """A folder around somebody's own artifact."""
    from packager.own_artifact import OwnArtifactOptions, build_own_submission, plan_own_submission
    from pgolf.own_artifacts import artifact_of
    from pgolf.scripts import read_script

    read = read_script(script)  # before the command, which may take long
    if command is not None:
        artifact = artifact_of(command, artifact)
    assert artifact is not None
    options = OwnArtifactOptions(
        parts=read.parts,
        script=script,
        artifact=artifact,
        cap=cap,
        author=author,
        title=title,
        minified=not no_minify,
        form=form,
    )
    plan = output is None or dry_run
    submission = plan_own_submission(options) if output is None or plan else build_own_submission(options, output)
    if as_json:
        print_json(
            {
                "submission": None if plan else str(output),
                "artifact": artifact.name,
                "artifact_bytes": submission.artifact_bytes,
                "code_bytes": submission.code_bytes,
                "total_bytes": submission.total_bytes,
                "cap_bytes": cap,
            }
        )
        return
    rows = [
        ("code", submission.code_bytes),
        (artifact.name, submission.artifact_bytes),
        ("total", submission.total_bytes),
        ("cap", cap),
        ("left", cap - submission.total_bytes),
    ]
    print_table([(name, f"{size:,}") for name, size in rows], ("part", "bytes"))
    click.echo("(nothing written)" if plan else f"written to {output}")
