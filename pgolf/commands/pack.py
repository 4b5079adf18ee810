"""`pgolf pack`: checkpoint -> submission folder under the byte cap."""

from pathlib import Path

import click

from codec.errors import UsageError
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import cap_option, fit_margin, fit_options


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--recipe", required=True, help="A recipe's name, a TOML file, or `stored`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to write; an earlier submission there is replaced."
)
@cap_option
@fit_options
@click.option(
    "--write-recipe", type=click.Path(path_type=Path), metavar="FILE", help="The fitted recipe as TOML, for --recipe."
)
@click.option("--script", type=click.Path(path_type=Path), help="Instead of the reference script.")
@click.option("--preset", help="What the script trains, where the checkpoint does not say: a name, or a TOML file.")
@click.option("--eval-only", is_flag=True, help="The smaller script that evaluates, and does not train.")
@click.option("--author", help="For submission.json.")
@click.option("--name", "title", help="For submission.json and README.md.")
@click.option(
    "--hessians", type=click.Path(path_type=Path), metavar="FILE", help="Of `pgolf calibrate`, for recipes with GPTQ."
)
@click.option("--no-minify", is_flag=True, help="Carry the sources as they are written.")
@click.option("--dry-run", is_flag=True, help="Show the plan, write nothing.")
@json_option
def pack(
    checkpoint: Path,
    recipe: str,
    output: Path | None,
    cap: int,
    fit: bool,
    margin: int | None,
    write_recipe: Path | None,
    script: Path | None,
    preset: str | None,
    eval_only: bool,
    author: str | None,
    title: str | None,
    hessians: Path | None,
    no_minify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize CHECKPOINT, encode it and put it beside a script that runs it.

    CHECKPOINT: safetensors, a .pt state dict, or a quantized .ptz of the challenge, whose own levels `--recipe
    stored` keeps as they are.  A file of a seed system or the baseline needs no config: its shapes tell the model.

    --fit: over the cap, matrices get wider steps than the recipe's; with bytes to spare finer ones, down to int8. Those
    move most where it harms least: harm is squared error in units of the recipe's own, or with --hessians predicted
    nats. What the recipe keeps as floats stays so. --dry-run lists what each step costs.

    The script trains the model again, as the checkpoint says it was trained, packs and scores it; of a checkpoint that
    does not say, it evaluates only.

    \b
    Example:
      pgolf pack out/run/checkpoint.safetensors --recipe pr162 -o out/submission
      pgolf pack out/run/checkpoint.safetensors --recipe pr1716 --fit --margin 2000 -o out/submission
      pgolf pack run/checkpoint.safetensors --recipe pr1716 --hessians run/calibration.safetensors -o submission
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output' (or --dry-run).")
    if preset and (eval_only or script):
        raise UsageError(
            f"--preset is for the script that trains, not for {'--eval-only' if eval_only else '--script'}"
        )
    if write_recipe and not fit:
        raise UsageError("--write-recipe without --fit", hint="it writes the recipe that is fitted")
    from codec.storage.atomic_files import check_writable, write_bytes
    from packager.submission import PackOptions, build_submission, plan_submission, stages
    from pgolf.checkpoints import preset_toml, read_model, read_weights
    from pgolf.fit_report import print_choices, print_fit

    options = PackOptions(
        checkpoint=checkpoint,
        recipe=recipe,
        script=script,
        preset_of=lambda notes: None if eval_only else preset_toml(notes, preset),
        cap=cap,
        author=author,
        title=title,
        minified=not no_minify,
        hessians=hessians,
        margin=fit_margin(fit, margin),
        read=read_weights if script else read_model,  # a script of one's own knows its model
    )
    if write_recipe:
        check_writable(write_recipe)
    with progress("pack", stages(options)) as step:
        if output is None or dry_run:
            submission = plan_submission(options, step)
        else:
            submission = build_submission(options, output, step)
    for note in submission.notes:
        echo(f"note: {note}", err=True)
    if submission.trains is False and not eval_only:
        why = "stored levels are no recipe" if recipe == "stored" else "the checkpoint does not say how it was trained"
        echo(f"note: {why}, so the script evaluates only", err=True)
    plan = submission.fitted
    if plan and write_recipe:
        from codec.quantization.recipe_files import recipe_toml

        write_bytes(write_recipe, recipe_toml(plan.recipe).encode())
    written = None if dry_run else str(output)
    if as_json:
        print_json(
            {
                "submission": written,
                "trains": submission.trains,
                "recipe": submission.recipe,
                "artifact_bytes": submission.artifact_bytes,
                "code_bytes": submission.code_bytes,
                "total_bytes": submission.total_bytes,
                "cap_bytes": cap,
                "sha256": submission.sha256,
                **({"margin_bytes": options.margin, "fit": plan.to_dict()} if plan else {}),
            }
        )
        return
    if plan and dry_run:
        print_choices(plan)
    rows = [
        ("code", submission.code_bytes),
        ("artifact", submission.artifact_bytes),
        ("total", submission.total_bytes),
        ("cap", cap),
        ("left", cap - submission.total_bytes),
    ]
    print_table([(name, f"{size:,}") for name, size in rows], ("part", "bytes"))
    click.echo(f"{submission.ledger.bits_per_weight:.3f} bits per weight, recipe {submission.recipe}")
    if plan:
        print_fit(plan)
    click.echo(f"sha256 {submission.sha256}  {written or '(nothing written)'}")
