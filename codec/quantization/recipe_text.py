"""A recipe as TOML: what `load_recipe` reads back as an equal recipe."""

import json
from typing import Any

from codec.quantization.recipe import Recipe

VERSION = 1


def recipe_toml(recipe: Recipe) -> str:
    """One line for each key, one table for each rule, in order.

    Raises: UsageError for a quantizer, step rule or granularity that is not registered.
    """
    head = {"version": VERSION, "name": recipe.name, "about": recipe.about, "coder": recipe.coder}
    tables = ["".join(_line(*item) for item in head.items())]
    tables += ["[[rules]]\n" + "".join(_line(*item) for item in rule.table().items()) for rule in recipe.rules]
    return "\n".join(tables)


def _line(key: str, value: Any) -> str:
    # What JSON says of strings, integers, booleans and lists is TOML, but for the character 127.
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key} = {text}\n"
