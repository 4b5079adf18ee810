"""The toolkit's own script as a submission carries it: with its training, or for evaluation only."""

from importlib import resources

from packager.script.bundle import Bundle, bundle
from packager.script.minify import minify
from packager.script.wrapper import wrap

SCRIPT = "train_gpt.py"  # the name that the challenge runs
FULL, EVAL_ONLY = "train_gpt.py", "eval_gpt.py"  # of packager/template
PRESET, RECIPE = "preset.toml", "recipe.toml"  # beside the readable script, inside the packed one


def template(name: str) -> str:
    """The readable source of the script."""
    return (resources.files("packager") / "template" / name).read_text("utf-8")


def reference_bundle(preset: str | None, recipe: str) -> Bundle:
    """The script with its modules.

    preset: TOML of the preset that it trains, None for the script that evaluates only.  recipe: TOML of the recipe by
    which it packs what it trained.
    """
    if preset is None:
        return bundle(template(EVAL_ONLY), SCRIPT)
    return bundle(template(FULL), SCRIPT, texts={PRESET: preset, RECIPE: recipe})


def packed_script(parts: Bundle, where: str, *, minified: bool = True) -> bytes:
    """One self-extracting file.  where: the script's name, for messages.  minified: False keeps the sources as written.

    Raises: InputError for a source that cannot be minified.
    """
    if not minified:
        return wrap(parts.main, parts.modules)
    return wrap(minify(parts.main, where), {name: minify(text, name) for name, text in parts.modules.items()})
