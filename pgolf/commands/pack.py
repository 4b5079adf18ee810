"""`pgolf pack`: checkpoint -> submission folder under the byte cap."""

from pathlib import Path

import click

from codec.errors import UsageError
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import cap_option


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--recipe", required=True, help="A recipe's name, a TOML file, or `stored`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to write; an earlier submission there is replaced."
)
@cap_option
@click.option("--fit", is_flag=True, help="Choose the steps of RECIPE's matrices so that the cap is just met.")
@click.option(
    "--margin",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Leave so many below the cap; with --fit.  [default: 0]",
)
@click.option(
    "--write-recipe", type=click.Path(path_type=Path), metavar="FILE", help="The fitted recipe as TOML, for --recipe."
)
@click.option("--script", type=click.Path(path_type=Path), help="Instead of the reference script.")
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

    \b
    Example:
      pgolf pack out/run/checkpoint.safetensors --recipe pr162 -o out/submission
      pgolf pack out/run/checkpoint.safetensors --recipe pr1716 --fit --margin 2000 -o out/submission
      pgolf pack run/checkpoint.safetensors --recipe pr1716 --hessians run/calibration.safetensors -o submission
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output' (or --dry-run).")
    for name, value in (("--margin", margin), ("--write-recipe", write_recipe)):
        if value is not None and not fit:
            raise UsageError(f"{name} without --fit", hint="it says how the recipe is fitted")
    from codec.storage.atomic_files import check_writable, write_bytes
    from packager.submission import PackOptions, build_submission, plan_submission, stages
    from pgolf.checkpoints import read_model, read_weights
    from pgolf.fit_report import print_choices, print_fit

    options = PackOptions(
        checkpoint=checkpoint,
        recipe=recipe,
        script=script,
        cap=cap,
        author=author,
        title=title,
        minified=not no_minify,
        hessians=hessians,
        margin=(margin or 0) if fit else None,
        read=read_weights if script else read_model,  # a script of one's own knows its model
    )
    if write_recipe:
        check_writable(write_recipe)
    with progress("pack", stages(options), left=not fit) as step:  # a fit needs fewer stages than it may
        if output is None or dry_run:
            submission = plan_submission(options, step)
        else:
            submission = build_submission(options, output, step)
    for note in submission.notes:
        echo(f"note: {note}", err=True)
    plan = submission.fitted
    if plan and write_recipe:
        from codec.quantization.recipe_text import recipe_toml

        write_bytes(write_recipe, recipe_toml(plan.recipe).encode())
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
