"""`pgolf pack`: checkpoint -> submission folder under the byte cap."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codec.errors import UsageError
from pgolf.commands.calibrate import calibration_beside
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import (
    calibration_option,
    cap_option,
    config_option,
    fit_margin,
    fit_options,
    form_option,
    size_options,
    switches_option,
)

if TYPE_CHECKING:
    from packager.script.wrapper import Form


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("--recipe", help="A recipe's name, a TOML file, or `stored`.  [default: best]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to write; an earlier submission there is replaced."
)
@cap_option
@fit_options
@size_options
@click.option(
    "--write-recipe", type=click.Path(path_type=Path), metavar="FILE", help="The fitted recipe as TOML, for --recipe."
)
@click.option("--script", type=click.Path(path_type=Path), help="Instead of the reference script.")
@click.option("--preset", help="What the script trains, and the model's switches, where the checkpoint does not say.")
@config_option
@switches_option
@click.option("--eval-only", is_flag=True, help="The smaller script that evaluates, and does not train.")
@click.option(
    "--artifact", type=click.Path(path_type=Path), metavar="FILE", help="Of the script's own, instead of CHECKPOINT."
)
@click.option(
    "--artifact-from", metavar="COMMAND", help="Run it first, with your rights: it writes the artifact, one new file."
)
@form_option
@click.option("--author", help="For submission.json.")
@click.option("--name", "title", help="For submission.json and README.md.")
@calibration_option
@click.option("--no-minify", is_flag=True, help="Carry the sources as they are written.")
@click.option("--dry-run", is_flag=True, help="Show the plan, write nothing.")
@json_option
def pack(
    checkpoint: Path | None,
    recipe: str | None,
    output: Path | None,
    cap: int,
    fit: bool,
    margin: int | None,
    artifact_bytes: int | None,
    bits_per_weight: float | None,
    write_recipe: Path | None,
    script: Path | None,
    preset: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    eval_only: bool,
    artifact: Path | None,
    artifact_from: str | None,
    form: "Form",
    author: str | None,
    title: str | None,
    calibration: Path | None,
    no_minify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize CHECKPOINT, encode it and put it beside a script that runs it.

    With --artifact there is no CHECKPOINT: --script is wrapped, and the file that it wrote lies beside it as it is.

    CHECKPOINT: safetensors, a .pt state dict, or a quantized .ptz of the challenge, whose own levels `--recipe
    stored` keeps as they are.  A file without a config must be of the toolkit's model: its shapes tell the sizes.
    Switches that no shape shows come from --config, --preset or --set; without them a warning lists what is guessed.

    Recipe `best` wants a calibration: make one with `pgolf calibrate CHECKPOINT --data DIR`. It has one knob for all
    tensors, the nats that rounding may add to the loss. Without calibration it guesses, and says so.

    --fit: turns that knob, or moves the steps of another recipe's matrices, until code and artifact just fit the cap.
    Steps of other recipes get wider or, down to int8, finer where it harms least: harm is squared error in units of the
    recipe's own, or with --hessians predicted nats. What a recipe keeps as floats stays so. --dry-run lists what each
    tensor costs. --bytes and --bits-per-weight fit the artifact alone.

    The toolkit's script loads the artifact once before anything is written.  It trains the model again, as the
    checkpoint says it was trained, packs and scores it; of a checkpoint that does not say, it evaluates only.

    \b
    Example:
      pgolf pack out/run/checkpoint.safetensors --fit -o out/submission
      pgolf pack out/run/checkpoint.safetensors --bits-per-weight 3.5 -o out/submission
      pgolf pack out/run/checkpoint.safetensors --recipe pr1716 --fit --margin 2000 -o out/submission
      pgolf pack run/checkpoint.safetensors --recipe pr1716 --hessians run/calibration.safetensors -o submission
      pgolf pack --script train_gpt_human.py --artifact final_model.int6.ptz -o submission
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output' (or --dry-run).")
    if artifact is not None or artifact_from is not None:
        if script is None:
            raise click.UsageError("--artifact goes with --script.")
        others = {
            "CHECKPOINT": checkpoint,
            "--recipe": recipe,
            "--hessians": calibration,
            "--fit": fit or None,
            "--margin": margin,
            "--bytes": artifact_bytes,
            "--bits-per-weight": bits_per_weight,
            "--write-recipe": write_recipe,
            "--preset": preset,
            "--config": config,
            "--set": settings or None,
            "--eval-only": eval_only or None,
        }
        if given := [name for name, value in others.items() if value is not None]:
            raise click.UsageError(f"--artifact goes without {', '.join(given)}: they are for a checkpoint.")
        if artifact_from is not None and dry_run:
            raise click.UsageError("--dry-run goes without --artifact-from, whose command writes a file.")
        _pack_own(script, artifact, artifact_from, form, output, cap, author, title, no_minify, dry_run, as_json)
        return
    if checkpoint is None:
        raise click.UsageError("Missing CHECKPOINT (or --script with --artifact).")
    if script and (named := [name for name, each in (("--preset", preset), ("--config", config)) if each]):
        raise UsageError(f"{named[0]} is for the toolkit's own script, --script knows its model")
    if script and settings:
        raise UsageError("--set is for the toolkit's own script, --script knows its model")
    if eval_only and script:
        raise UsageError("--eval-only is for the toolkit's own script, --script names another")
    ways = {"--fit": fit or None, "--bytes": artifact_bytes, "--bits-per-weight": bits_per_weight}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} are two sizes", hint="choose one")
    if write_recipe and not chosen:
        raise UsageError("--write-recipe without --fit", hint="it writes the recipe that is fitted")
    from codec.quantization.recipe_files import DEFAULT_RECIPE

    if recipe is None:
        recipe, calibration = DEFAULT_RECIPE, calibration or calibration_beside(checkpoint)
    from codec.storage.atomic_files import check_writable, write_bytes
    from packager.submission import STAGES, PackOptions, build_submission, plan_submission
    from pgolf.checkpoints import ModelSource, preset_toml, read_model, read_weights
    from pgolf.fit_report import print_choices, print_fit

    model = ModelSource(config=config, preset=preset, settings=settings, trains=not eval_only)
    options = PackOptions(
        checkpoint=checkpoint,
        recipe=recipe,
        script=script,
        preset_of=lambda notes: None if eval_only else preset_toml(notes, preset),
        cap=cap,
        author=author,
        title=title,
        minified=not no_minify,
        form=form,
        hessians=calibration,
        margin=fit_margin(fit, margin),
        artifact_bytes=artifact_bytes,
        bits_per_weight=bits_per_weight,
        read=read_weights if script else partial(read_model, source=model),  # a script of one's own knows its model
    )
    if write_recipe:
        check_writable(write_recipe)
    with progress("pack", STAGES, most=options.fits) as step:  # a fit needs fewer tries than it may
        if output is None or dry_run:
            submission = plan_submission(options, step)
        else:
            submission = build_submission(options, output, step)
    for note in submission.notes:
        echo(f"note: {note}", err=True)
    if submission.trains is False and not eval_only:
        why = "stored levels are no recipe" if recipe == "stored" else "the checkpoint does not say how it was trained"
        echo(f"note: {why}, so the script evaluates only", err=True)
    if script:
        echo(f"note: {script.name} is yours and was not run here; `pgolf verify` lets it load the artifact", err=True)
    plan = submission.fitted
    if plan and write_recipe:
        from codec.quantization.recipe_files import recipe_toml

        write_bytes(write_recipe, recipe_toml(plan.recipe).encode())
    written = None if dry_run else str(output)
    if as_json:
        print_json(
            {
                "submission": written,
                **submission.to_dict(),
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
    elif submission.nats is not None:
        click.echo(f"predicted: rounding adds {submission.nats:.6f} nats to the loss of a token")
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
    if output is None or plan:
        submission = plan_own_submission(options, progress)
    else:
        submission = build_own_submission(options, output, progress)
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
