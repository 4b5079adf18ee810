"""`pgolf new`: a submission to begin with, from a preset."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from codec.errors import UsageError
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import cap_option, fit_margin, fit_options, form_option, settings_option

if TYPE_CHECKING:
    from packager.script.wrapper import Form

FALLBACK = "pr162-small"  # the recipe of presets that have none of their own name


@click.command()
@click.argument("preset")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write.")
@click.option("--recipe", help=f"How it is packed.  [default: the recipe of the preset's name, else {FALLBACK}]")
@settings_option
@cap_option
@fit_options
@form_option
@click.option("--no-minify", is_flag=True, help="Carry the sources as they are written.")
@json_option
def new(
    preset: str,
    output: Path,
    recipe: str | None,
    settings: tuple[str, ...],
    cap: int,
    fit: bool,
    margin: int | None,
    form: "Form",
    no_minify: bool,
    as_json: bool,
) -> None:
    """Write one train_gpt.py that trains PRESET, packs it, loads it again and scores it, and the source of that file.

    DIR/train_gpt.py is complete: with token shards, a tokenizer and the packages of requirements.txt it runs anywhere.
    --fit lets the script choose the steps of what it trained, so that code and artifact just meet the cap.
    DIR/source is what to edit: the script, preset.toml and recipe.toml; `pgolf wrap` makes one file of them again.

    \b
    Example:
      pgolf new cpu-demo -o mine
      pgolf new pr1716 --recipe pr1716 --set mlp_hidden=1792 -o mine
      torchrun --standalone --nproc_per_node=8 mine/train_gpt.py --data data
      pgolf wrap mine/source/train_gpt.py -o mine/train_gpt.py --force
    """
    from codec.quantization.recipe_files import load_recipe, recipe_names, recipe_text
    from packager.fitting import check_fit
    from packager.reference import Training
    from packager.scaffold import SOURCE, scaffold, write_scaffold
    from trainer.presets.catalog import find_preset
    from trainer.presets.overrides import apply_overrides

    chosen = apply_overrides(find_preset(preset), settings)
    trained_by = chosen.train.qat_recipe
    named = recipe or trained_by or (chosen.name if chosen.name in recipe_names() else FALLBACK)
    loaded = load_recipe(named)
    if trained_by and loaded.name != trained_by:
        raise UsageError(
            f"preset {chosen.name} trains through recipe {trained_by}, the script would pack by {loaded.name}",
            hint=f"--recipe {trained_by}, or another qat_recipe",
        )
    chosen_margin = fit_margin(fit, margin)
    check_fit(named, cap, chosen_margin)
    training = Training(preset=chosen.to_toml(), recipe=recipe_text(named), cap=cap, margin=chosen_margin)
    made = scaffold(training, minified=not no_minify, form=form, bar=progress)
    write_scaffold(made, output)
    if loaded.calibrates and chosen.train.max_seconds and not chosen.train.reserve_seconds:
        echo(
            f"note: recipe {loaded.name} calibrates after the last step, for which preset {chosen.name} keeps no time; "
            "--set reserve_seconds=N",
            err=True,
        )
    if as_json:
        print_json(
            {
                "submission": str(output),
                "preset": chosen.name,
                "recipe": loaded.name,
                "code_bytes": made.code_bytes,
                "modules": list(made.modules),
            }
        )
        return
    print_table(
        [
            ("preset", chosen.name),
            ("recipe", loaded.name),
            ("train_gpt.py, bytes", f"{made.code_bytes:,}"),
            ("modules of the toolkit inside", len(made.modules)),
        ]
    )
    click.echo(f"edit:  {output / SOURCE}")
    click.echo(f"run:   torchrun --standalone --nproc_per_node=N {output / 'train_gpt.py'} --data DATA")
